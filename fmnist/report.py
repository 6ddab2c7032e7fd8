"""`report`: a finished run as a table for the terminal and as a page for the browser."""

import itertools
import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmnist import config, page, rundir
from fmnist.results import Results, facts, read, verdict, warning
from fmnist.rundir import RunDir

_WIDTH = 80
_TRIAL_COLUMNS = ("trial", "status", "score", "epochs", "seconds", "worker", "message")


def summary(run: RunDir) -> str:
    """The run as plain text of 80 columns: what was measured and run, and where the files are.

    Raises:
        BadInput: no run here, not evaluated yet, or a damaged file.
    """
    results = read(run)
    alert = warning(results)
    lines = textwrap.wrap(f"*** {alert} ***", _WIDTH) if alert else []
    lines += [*textwrap.wrap(verdict(results), _WIDTH), ""]
    lines += [f"{'':<28}{'this run':<10}{'95% interval':<22}reference", "-" * _WIDTH]
    for figure in results.figures:
        interval = f"{figure.interval[0]:.4f} to {figure.interval[1]:.4f}" if figure.interval else ""
        lines.append(f"{figure.name:<28}{figure.value:<10.4f}{interval:<22}{_decimals(figure.reference)}".rstrip())
    lines.append("-" * _WIDTH)
    for name, text in facts(results).items():
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10, break_long_words=False
        )
    return "\n".join(lines)


def write(run: RunDir) -> Path:
    """Write report.html: one page that loads nothing else.

    Raises:
        BadInput: no run here, not evaluated yet, or a damaged file.
    """
    results = read(run)
    html = page.document(results.title, _sections(results))
    with rundir.atomic_write(run.report) as file:
        file.write(html.encode())
    return run.report


def _sections(results: Results) -> Iterator[str]:
    yield _head(results)
    yield _figures(results)
    yield _learning_curves(results)
    if any(score is not None for score in results.scores):
        yield _search(results)
    yield _confusions(results)
    yield _classes(results)
    yield _configuration(results)
    yield _provenance(results)


def _head(results: Results) -> str:
    low, high = results.metrics["test"]["accuracy_interval"]
    alert = warning(results)
    return "".join(
        [
            page.element("h1", results.title),
            page.element("p", alert, "alert") if alert else "",
            page.element("p", verdict(results), "verdict"),
            page.element("p", f"95% interval {low:.2%} to {high:.2%}. {results.recipe.description}", "muted"),
        ]
    )


def _figures(results: Results) -> str:
    rows = [
        [
            figure.name,
            _decimals(figure.value),
            _decimals(figure.reference),
            "" if figure.reference is None else f"{figure.value - figure.reference:+.4f}",
        ]
        for figure in results.figures
    ]
    return page.section(
        "Figures",
        page.table(["", "this run", "reference", "difference"], rows),
        page.element("h3", "What was run"),
        page.table([], facts(results).items()),
    )


def _learning_curves(results: Results) -> str:
    history, kept_epoch = results.training["history"], results.training["best_epoch"] + 1
    curves = [
        page.chart(
            name.capitalize(),
            "epoch",
            [page.Series("training", history[name]), page.Series("validation", history[f"val_{name}"])],
            mark=kept_epoch,
        )
        for name in ("loss", "accuracy")
    ]
    note = f"The dotted line marks epoch {kept_epoch}, whose weights were kept."
    return page.section("Learning curves", page.charts(curves), page.element("p", note, "muted"))


def _search(results: Results) -> str:
    better = min if results.objective == "val_loss" else max
    worst = math.inf if better is min else -math.inf
    scores = [worst if score is None else score for score in results.scores]
    best_so_far = [None if score == worst else score for score in itertools.accumulate(scores, better)]
    ranked = sorted(zip(scores, results.trials, strict=True), key=lambda pair: pair[0], reverse=better is max)
    hyperparameters = [column for column in results.trials[0] if column not in _TRIAL_COLUMNS]
    columns = [*_TRIAL_COLUMNS[:-1], *hyperparameters, "message"]
    return page.section(
        "Search",
        page.charts(
            [
                page.chart(
                    f"Score: {results.objective}",
                    "trial",
                    [page.Series("trial", results.scores, "dots"), page.Series("best so far", best_so_far, "steps")],
                )
            ]
        ),
        page.element("h3", "Trials, the best first"),
        page.table(
            [column.rpartition(".")[2] for column in columns],
            ([_short(trial.get(column, "")) for column in columns] for _, trial in ranked),
            "wide",
        ),
    )


def _confusions(results: Results) -> str:
    test = results.metrics["test"]
    note = "A row is a true class, a column a predicted one; the cells count test images."
    return page.section(
        "Confusion matrix",
        page.element("p", note, "muted"),
        page.heat_table([row["name"] for row in test["per_class"]], test["confusion_matrix"]),
    )


def _classes(results: Results) -> str:
    test = results.metrics["test"]
    rows = [(row["name"], row, row["support"]) for row in test["per_class"]]
    rows += [(f"{mean} mean", test[mean], test["images"]) for mean in ("macro", "weighted")]
    return page.section(
        "Classes",
        page.table(
            ["", "precision", "recall", "F1", "images"],
            ([name, *(_decimals(row[key]) for key in ("precision", "recall", "f1")), str(n)] for name, row, n in rows),
        ),
    )


def _configuration(results: Results) -> str:
    chosen = results.best["values"] if results.best else {}
    settings = config.to_dict(results.recipe)
    rows = [
        (key, json.dumps(value), "search" if key in chosen else "recipe")
        for section in ("data", "model", "training")
        for key, value in ((f"{section}.{name}", value) for name, value in settings[section].items())
    ]
    return page.section("Configuration", page.table(["", "value", "from"], rows))


def _provenance(results: Results) -> str:
    # The hashes have a table of their own: they are the same for every job.
    jobs = {
        name: _flat({fact: value for fact, value in job.items() if fact != "data"})
        for name, job in results.jobs.items()
    }
    names = dict.fromkeys(name for job in jobs.values() for name in job)
    hashes = {results.run.model.name: results.metrics["model"]["sha256"], **results.metrics["data"]["sha256"]}
    return page.section(
        "Provenance",
        page.table(["", *jobs], ([name, *(job.get(name, "") for job in jobs.values())] for name in names)),
        page.element("h3", "SHA-256"),
        page.table([], hashes.items()),
    )


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _short(text: str) -> str:
    """A number to four digits, or the last line, which is the one that tells in a traceback."""
    try:
        return f"{float(text):.4g}" if set(text) & set(".e") else text
    except ValueError:
        return text.strip().rpartition("\n")[2]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = "" if value is None else str(value)
    return flat
