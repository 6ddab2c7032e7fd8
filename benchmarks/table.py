"""Figures: paired samples, their ratio with its spread, and the table of them."""

import operator
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_COMPARISONS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    case: what was trained.
    goal: such as ">= 3.5" or "<= 0.6"; empty if none is set.
    ours, theirs: samples of equal number, taken in pairs; their unit is `unit` ("s", "bytes").
    values: what the goal is about, one of each pair.
    note: why there are no samples, or what else to know.
    """

    name: str
    case: str = ""
    goal: str = ""
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    unit: str = "s"
    note: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.name, *_cells(self)[1:])))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without a goal or samples."""
        if not (self.goal and self.values):
            return None
        comparison, value = self.goal.split()
        return bool(_COMPARISONS[comparison](self.median, float(value)))


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """How many times as fast ours is, pair by pair."""
    return tuple(b / a for a, b in zip(ours, theirs, strict=True))


def cost(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """How many times as much ours takes, pair by pair."""
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))


def to_dict(figure: Figure) -> dict[str, Any]:
    """Plain values for JSON, the statistics with the samples."""
    result = asdict(figure) | {"n": len(figure.values), "met": figure.met}
    if figure.values:
        result |= {"median": figure.median, "min": min(figure.values), "max": max(figure.values)}
    return result


def render(figures: Sequence[Figure]) -> str:
    """Return a Markdown table that is aligned in a terminal too."""
    header = ("figure", "network", "goal", "median", "min to max", "n", "ours", "other", "reached")
    rows = [header, *map(_cells, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note and figure.values]
    return "\n".join([*lines, "", *notes]).rstrip()


def _cells(figure: Figure) -> tuple[str, ...]:
    if not figure.values:
        return (figure.name, figure.case, figure.goal, figure.note, "", "", "", "", "")
    return (
        figure.name,
        figure.case,
        figure.goal,
        f"{figure.median:.2f}",
        f"{min(figure.values):.2f} to {max(figure.values):.2f}",
        str(len(figure.values)),
        _amount(figure.ours, figure.unit),
        _amount(figure.theirs, figure.unit),
        {True: "yes", False: "NO", None: ""}[figure.met],
    )


def _amount(samples: Sequence[float], unit: str) -> str:
    if not samples:
        return ""
    value = statistics.median(samples)
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
