"""Report several runs: a table for the terminal and a page for the browser."""

import os
from collections.abc import Sequence
from pathlib import Path

from fmnist.files import write_output
from fmnist.report import page, plots
from fmnist.report.comparison import Group, Pair, differences, groups, pairs, read_all
from fmnist.report.results import Results, warning
from fmnist.run.folder import RunDir

_FIGURES = ("test accuracy", "validation accuracy", "macro F1", "test loss", "expected calibration error")
_HEADS = [name.removeprefix("expected ") for name in _FIGURES]


def summary(runs: Sequence[RunDir]) -> str:
    """Return a plain text: each recipe's mean and standard deviation over its seeds, then the paired tests.

    Raises:
        BadInput: a run that cannot be compared.
    """
    results = read_all(runs)
    lines = []
    for group in groups(results):
        lines.append(f"{group.name}, n = {len(group.runs)} ({group.seeds})")
        lines += [f"  {name:<28}{group.spread(name)}" for name in _FIGURES]
    lines += [f"{_names(pair)}: {100 * pair.difference:+.2f} points, p {_p(pair)}" for pair in pairs(results)]
    return "\n".join(lines)


def write(runs: Sequence[RunDir], output: Path | None = None) -> Path:
    """Write the page to `output`, or to comparison.html beside the first run's folder, and return its path.

    The page loads no other file.

    Raises:
        BadInput: a run that cannot be compared.
    """
    results = read_all(runs)
    path = output or runs[0].parent / "comparison.html"
    found = groups(results)
    sections = {
        "By recipe": _by_recipe(found),
        "Differences": _differences(found),
        "Runs": _runs(found, path.parent),
        "Learning curves": _learning_curves(found),
        "Classes": _classes(found),
        "Pairs of models": _pairs(pairs(results)),
    }
    parts = [page.section(title, *fragments) for title, fragments in sections.items() if fragments]
    contents = page.contents(title for title, fragments in sections.items() if fragments)
    html = page.document("Comparison of runs", [_head(results, found), contents, *parts])
    write_output(path, html)
    return path


def _head(results: Sequence[Results], found: Sequence[Group]) -> str:
    ranked = sorted(found, key=lambda group: -group.spread("test accuracy").mean)
    first, *others = ranked
    said = f"{first.name} classifies {_percent(first)} of the test images correctly"
    said = ", ".join([said, *(f"{group.name} {_percent(group)}" for group in others)])
    alerts = dict.fromkeys(alert for run in results if (alert := warning(run)))
    tiles = [(group.name, _percent(group), f"test accuracy, n = {len(group.runs)}, {group.seeds}") for group in found]
    return "".join(
        [
            page.element(
                "h1", f"{len(results)} run{'s' * (len(results) > 1)} of {len(found)} recipe{'s' * (len(found) > 1)}"
            ),
            *(page.element("p", alert, "alert") for alert in alerts),
            page.element("p", f"{said}.", "verdict"),
            page.element("p", "Mean ± standard deviation (n - 1) over the seeds.", "muted"),
            page.tiles(tiles),
        ]
    )


def _percent(group: Group) -> str:
    spread = group.spread("test accuracy")
    return f"{spread.mean:.2%}" if spread.deviation is None else f"{spread.mean:.2%} ± {spread.deviation:.2%}"


def _by_recipe(found: Sequence[Group]) -> list[str]:
    rows = [[group.name, str(len(group.runs)), *(str(group.spread(name)) for name in _FIGURES)] for group in found]
    return [page.table(["", "n", *_HEADS], rows, "wide")]


def _differences(found: Sequence[Group]) -> list[str]:
    rows = differences(found)
    if not rows:
        return []
    note = "The settings that differ, where they are set; of a search the values that it chooses from."
    return [
        page.element("p", note, "muted"),
        page.table(["", *(group.name for group in found)], ([key, *values] for key, values in rows), "wide text"),
    ]


def _runs(found: Sequence[Group], folder: Path) -> list[str]:
    members = [(color, group, run) for color, group in enumerate(found) for run in group.runs]
    rows = []
    for color, _, run in members:
        low, high = run.metrics["test"]["accuracy_interval"]
        rows.append(plots.Interval(run.run.name, run.metrics["test"]["accuracy"], low, high, color))
    table = page.table(
        ["run", "recipe", "seed", *_HEADS, "epochs", "training s"],
        (
            [
                run.run.name,
                group.name,
                str(run.seed),
                *(_figure(run, name) for name in _FIGURES),
                str(len(run.training["history"]["loss"])),
                f"{run.training['seconds']:.1f}",
            ]
            for _, group, run in members
        ),
        "wide sortable",
    )
    links = [
        page.link(f"the page of {run.run.name}", os.path.relpath(run.run.report, folder))
        for _, _, run in members
        if run.run.report.exists()
    ]
    note = "The 95% interval of each run is that of its own test images; it knows nothing of other seeds."
    return [
        page.element("p", note, "muted"),
        plots.intervals("Test accuracy of the runs", rows),
        table,
        page.details("Pages of the runs", *links) if links else "",
    ]


def _figure(run: Results, name: str) -> str:
    return next((f"{figure.value:.4f}" for figure in run.figures if figure.name == name), "")


def _learning_curves(found: Sequence[Group]) -> list[str]:
    # Training figures do not compare with validation figures, so they are shown only if no run has validation figures.
    without = [group.name for group in found if not group.spread("validation accuracy").values]
    split, prefix = ("Validation", "val_") if len(without) < len(found) else ("Training", "")
    note = f"Without validation images there are no such curves: {', '.join(without)}." if without and prefix else ""
    charts = []
    for name in ("loss", "accuracy"):
        series = [
            plots.Series(group.name if index == 0 else "", run.training["history"][prefix + name], color=color)
            for color, group in enumerate(found)
            for index, run in enumerate(group.runs)
            if prefix + name in run.training["history"]
        ]
        charts.append(plots.curves(f"{split} {name}", "epoch", series))
    return [page.element("p", note, "muted") if note else "", page.columns(charts)]


def _classes(found: Sequence[Group]) -> list[str]:
    names = found[0].runs[0].metrics["data"]["classes"]
    f1_scores = [
        [sum(run.metrics["test"]["per_class"][label]["f1"] for run in group.runs) / len(group.runs) for group in found]
        for label in range(len(names))
    ]
    return [
        page.element("p", "F1 of each class, the mean over the seeds.", "muted"),
        page.bar_table(["", *(group.name for group in found)], zip(names, f1_scores, strict=True)),
    ]


def _pairs(found: Sequence[Pair]) -> list[str]:
    if not found:
        return []
    note = (
        "Two models on the same test images: how many the one alone had right, and McNemar's exact test that they are "
        "right equally often. A small p says that these two models differ, not that their recipes do: that is what "
        "the spread over the seeds is for. Each p stands alone, not corrected for the number of tests."
    )
    rows = [
        [
            _names(pair),
            f"{100 * pair.difference:+.2f}",
            str(pair.first_only),
            str(pair.second_only),
            _p(pair).removeprefix("= "),
        ]
        for pair in found
    ]
    head = ["second against first", "points", "first alone", "second alone", "p"]
    return [page.element("p", note, "muted"), page.table(head, rows, "wide")]


def _names(pair: Pair) -> str:
    return f"{pair.second.run.name} against {pair.first.run.name}"


def _p(pair: Pair) -> str:
    return f"= {pair.p:.2g}" if pair.p >= 1e-4 else "< 0.0001"
