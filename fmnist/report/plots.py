"""Draw plots as inline SVG, coloured by the page's style. It knows nothing of runs."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from fmnist.report import page

# A parameter of so few values has them at equal distances; one whose values span more than this factor, on a log scale.
_FEW = 6
_LOG_FACTOR = 30
_MISSING = "–"


@dataclass(frozen=True)
class Series:
    """A sequence of y values at x = 1, 2, ...; None is left out. By default each series has its own `color`.

    name: in the legend; a series without a name is not there.
    told: what is shown when the pointer is on it: of each dot, or of a line one text.
    """

    name: str
    values: Sequence[float | None]
    style: Literal["line", "steps", "dots"] = "line"
    color: int | None = None
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Interval:
    """A named value with an interval around it; the note stands beside it, by default the value."""

    name: str
    value: float
    low: float
    high: float
    color: int = 0
    note: str = ""


class Scale:
    """A linear or logarithmic map from numbers to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self._map = math.log if log else float
        self._low, self._high, self._log = low, high, log
        self._start, self._end = start, end

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, log: bool = False) -> "Scale":
        """Return a scale on which these values fill almost the whole range from `start` to `end`."""
        known = list(values)
        low, high = min(known), max(known)
        if log:
            return cls(low / 1.2, high * 1.2, start, end, log)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - margin, high + margin, start, end)

    def __call__(self, value: float) -> float:
        low, high = self._map(self._low), self._map(self._high)
        return self._start + (self._end - self._start) * (self._map(value) - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return pixel and label of about four round numbers; on a log scale, of 1 and 3 times powers of ten."""
        numbers = self._round_numbers()
        digits = 3
        if len(numbers) > 1:
            # Without more digits, close numbers would have the same label.
            step = min(after - before for before, after in itertools.pairwise(numbers))
            largest = max(map(abs, numbers))
            digits = max(digits, 1 + math.floor(math.log10(largest)) - math.floor(math.log10(step)))
        return [(self(tick), f"{tick:.{digits}g}") for tick in numbers]

    def _round_numbers(self) -> list[float]:
        if self._log:
            powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
            steps = (10.0**power * factor for power in powers for factor in (1, 3))
            return [step for step in steps if self._low <= step <= self._high]
        wanted = (self._high - self._low) / 4
        power = 10 ** math.floor(math.log10(wanted))
        step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(step - wanted))
        return [n * step for n in range(math.ceil(self._low / step), math.floor(self._high / step) + 1)]


class Parameter:
    """One hyperparameter's values over the trials, as texts, mapped to pixels; an empty value has its own place."""

    def __init__(self, name: str, values: Sequence[str], start: float, end: float) -> None:
        self.name = name
        texts = [value or _MISSING for value in values]
        distinct = sorted(set(texts), key=_natural)
        numbers = [float(text) for text in distinct if _is_number(text)]
        self._scale = None
        self._places: dict[str, float] = {}
        if len(numbers) == len(distinct) > _FEW:
            log = min(numbers) > 0 and max(numbers) / min(numbers) > _LOG_FACTOR
            self._scale = Scale.over(numbers, start, end, log)
        else:
            step = (end - start) / len(distinct)
            self._places = {text: start + (index + 0.5) * step for index, text in enumerate(distinct)}
        self.pixels = [self._scale(float(text)) if self._scale else self._places[text] for text in texts]

    def ticks(self) -> list[tuple[float, str]]:
        """Return the pixel and the label of each tick."""
        return self._scale.ticks() if self._scale else [(pixel, text) for text, pixel in self._places.items()]


def curves(title: str, x_name: str, series: Sequence[Series], mark: int | None = None) -> str:
    """Return a line chart. With `mark`, it has a vertical line at that x."""
    width, height, left, right, top, bottom = 480, 250, 60, 12, 10, 34
    y = Scale.over((v for line in series for v in line.values if v is not None), height - bottom, top)
    count = max(len(line.values) for line in series)
    x = Scale(1, max(count, 2), left, width - right)
    parts = _y_grid(y, left, width - right)
    for position in sorted({1, (1 + count) // 2, count}):
        parts.append(f'<text x="{x(position):.1f}" y={height - 16} text-anchor=middle>{position}</text>')
    parts.append(f'<text x="{width - right}" y={height - 2} text-anchor=end>{escape(x_name)}</text>')
    if mark:
        parts.append(f'<line class=mark x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1={top} y2={height - bottom} />')
    legend = []
    for index, line in enumerate(series):
        color = index if line.color is None else line.color
        points = [(x(n), y(value)) for n, value in enumerate(line.values, 1) if value is not None]
        if line.name:
            legend.append((color, line.name))
        if line.style == "dots":
            told = [line.told[n] for n, value in enumerate(line.values) if value is not None] if line.told else []
            parts += [_dot(color, px, py, 4, name) for (px, py), name in itertools.zip_longest(points, told)]
        elif len(points) == 1:
            parts += [_dot(color, px, py, 3, *line.told) for px, py in points]
        elif points:
            parts.append(_polyline(color, points, line.style == "steps", *line.told))
    return _figure(title, width, height, parts, page.legend(legend))


def scatter(
    title: str, values: Sequence[str], scores: Sequence[float], names: Sequence[str], colors: Sequence[int]
) -> str:
    """Return a plot of scores over a hyperparameter's values; a dot shows its name when the pointer is on it."""
    width, height, left, right, top, bottom = 480, 220, 56, 16, 10, 26
    x = Parameter(title, values, left, width - right)
    y = Scale.over(scores, height - bottom, top)
    parts = _y_grid(y, left, width - right)
    parts += [f'<text x="{px:.1f}" y={height - 6} text-anchor=middle>{escape(label)}</text>' for px, label in x.ticks()]
    for px, score, name, color in zip(x.pixels, scores, names, colors, strict=True):
        parts.append(_dot(color, px, y(score), 4.5, name, "weak"))
    return _figure(title, width, height, parts)


def parallel_coordinates(
    parameters: Sequence[tuple[str, Sequence[str]]],
    objective: str,
    scores: Sequence[float],
    goodness: Sequence[float],
    names: Sequence[str],
) -> str:
    """Return a plot with one line per trial, through its hyperparameters to its score.

    Args:
        parameters: name and values of each hyperparameter; a value per trial, as text.
        goodness: rank of each trial, from 0 (the worst) to 1 (the best); it colours the line. The best are drawn last.
        names: name of each trial, shown when the pointer is on its line.
    """
    width, height, side, top, bottom = 1048, 320, 44, 44, 14
    step = (width - 2 * side - 24) / max(len(parameters), 1)
    axes = [Parameter(name, values, height - bottom, top) for name, values in parameters]
    score = Scale.over(scores, height - bottom, top)
    parts = []
    lines = sorted(range(len(scores)), key=lambda index: goodness[index])
    for index in lines:
        points = [(side + step * place, axis.pixels[index]) for place, axis in enumerate(axes)]
        points.append((side + step * len(axes), score(scores[index])))
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        share = goodness[index]
        parts.append(
            f'<polyline class=trial style="--share:{share:.3f}" points="{path}"><title>{escape(names[index])}</title>'
            "</polyline>"
        )
    ends = [(axis.name, axis.ticks()) for axis in axes] + [(objective, score.ticks())]
    for place, (name, ticks) in enumerate(ends):
        px = side + step * place
        parts.append(f'<line class=axis x1="{px:.1f}" x2="{px:.1f}" y1={top} y2={height - bottom} />')
        # The outermost names stay within the picture.
        anchor, at = ("start", 0.0) if place == 0 else ("end", width) if place == len(axes) else ("middle", px)
        parts.append(f'<text x="{at:.1f}" y={18 if place % 2 == 0 else 34} text-anchor={anchor}>{escape(name)}</text>')
        parts += [f'<text x="{px + 5:.1f}" y="{py + 4:.1f}">{escape(label)}</text>' for py, label in ticks]
    return f"<div class=scroll>{_svg('Parallel coordinates of the trials', width, height, parts, 'broad')}</div>"


def reliability(title: str, bins: Iterable[tuple[int, float, float]]) -> str:
    """Return a reliability diagram: accuracy over confidence, with the diagonal on which both agree.

    A bin is a disc, which is the larger the more images the bin holds.

    Args:
        bins: number of images, mean confidence and accuracy of each bin.
    """
    width, height, left, right, top, bottom = 480, 340, 48, 20, 16, 40
    known = list(bins)
    most = max(images for images, _, _ in known)
    x, y = Scale(0, 1, left, width - right), Scale(0, 1, height - bottom, top)
    parts = _y_grid(y, left, width - right)
    parts += [f'<text x="{px:.1f}" y={height - 20} text-anchor=middle>{label}</text>' for px, label in x.ticks()]
    parts.append(f'<line class=mark x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" />')
    for images, confidence, accuracy in known:
        name = f"{images:,} images, confidence {confidence:.3f}, accuracy {accuracy:.3f}"
        parts.append(_dot(0, x(confidence), y(accuracy), 3 + 13 * math.sqrt(images / most), name, "weak"))
    parts.append(f'<text x="{width - right}" y={height - 4} text-anchor=end>confidence</text>')
    parts.append(f'<text x="{left + 6}" y={top + 4}>accuracy</text>')
    return _figure(title, width, height, parts)


def intervals(title: str, rows: Sequence[Interval], *, zero: bool = False) -> str:
    """Return a plot with a line per row: a dot at the value, and a bar over the interval, all on one scale.

    It is of HTML, so that names of any length fit a phone.

    Args:
        zero: whether the scale includes 0.
    """
    x = Scale.over([edge for row in rows for edge in (row.low, row.high)] + [0.0] * zero, 0, 100)
    ticks = "".join(f'<i style="left:{at:.2f}%"><b>{label}</b></i>' for at, label in x.ticks())
    lines = []
    for row in rows:
        told = f"{row.name}: {row.value:.4f}, {row.low:.4f} to {row.high:.4f}"
        note = escape(row.note or f"{row.value:.4f}")
        places = f"--low:{x(row.low):.2f}%;--at:{x(row.value):.2f}%;--high:{x(row.high):.2f}%"
        lines.append(
            f'<div class="interval {page.series(row.color)}" title="{escape(told)}"><span>{escape(row.name)}</span>'
            f'<span class=track style="{places}"></span><span class=number>{note}</span></div>'
        )
    lines.append(f"<div class=interval><span></span><span class=ticks>{ticks}</span><span></span></div>")
    return f"<figure class=intervals><figcaption>{escape(title)}</figcaption>{''.join(lines)}</figure>"


def _y_grid(y: Scale, left: float, right: float) -> list[str]:
    parts = []
    for py, label in y.ticks():
        parts.append(f'<line class=grid x1={left} x2={right} y1="{py:.1f}" y2="{py:.1f}" />')
        parts.append(f'<text x={left - 6} y="{py + 4:.1f}" text-anchor=end>{label}</text>')
    return parts


def _dot(color: int, x: float, y: float, radius: float, name: str | None = "", kind: str = "") -> str:
    told = f"<title>{escape(name)}</title>" if name else ""
    kinds = " ".join(filter(None, [page.series(color), kind]))
    return f'<circle class="{kinds}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{told}</circle>'


def _polyline(color: int, points: Sequence[tuple[float, float]], steps: bool = False, name: str = "") -> str:
    if steps:
        corners = [((right, y), (right, next_y)) for (_, y), (right, next_y) in itertools.pairwise(points)]
        points = [points[0], *itertools.chain.from_iterable(corners)]
    told = f"<title>{escape(name)}</title>" if name else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{page.series(color)}" points="{path}">{told}</polyline>'


def _figure(title: str, width: int, height: int, parts: Iterable[str], legend: str = "") -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{_svg(title, width, height, parts)}</figure>"


def _svg(title: str, width: int, height: int, parts: Iterable[str], kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<svg{name} viewBox="0 0 {width} {height}" role=img aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _natural(text: str) -> tuple[bool, float, str]:
    """Return a key that sorts missing values first, numbers by size and words by letters."""
    return (text != _MISSING, float(text) if _is_number(text) else 0.0, text)
