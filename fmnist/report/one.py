"""Report one run: a table for the terminal and a page for the browser."""

import io
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from fmnist.files import write_output
from fmnist.recipe import config
from fmnist.report import page, plots, search
from fmnist.report.results import Results, facts, read, verdict, warning
from fmnist.run.folder import RunDir

_WIDTH = 80
_CONFUSIONS = 8


def summary(run: RunDir) -> str:
    """Return a plain text of 80 columns: the run's figures and settings, and the place of its files.

    Raises:
        BadInput: there is no run, it is not evaluated yet, or a file is damaged.
    """
    results = read(run)
    alert = warning(results)
    lines = textwrap.wrap(f"*** {alert} ***", _WIDTH) if alert else []
    lines += [*textwrap.wrap(verdict(results), _WIDTH), ""]
    referred = any(figure.reference is not None for figure in results.figures)
    head = f"{'':<28}{'this run':<10}{'95% interval':<22}{'reference' if referred else ''}"
    lines += [head.rstrip(), "-" * _WIDTH]
    for figure in results.figures:
        interval = f"{figure.interval[0]:.4f} to {figure.interval[1]:.4f}" if figure.interval else ""
        lines.append(f"{figure.name:<28}{figure.value:<10.4f}{interval:<22}{_decimals(figure.reference)}".rstrip())
    lines.append("-" * _WIDTH)
    for name, text in facts(results).items():
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10, break_long_words=False
        )
    return "\n".join(lines)


def write(run: RunDir, output: Path | None = None) -> Path:
    """Write the page to `output`, or to the run's report.html, and return its path. The page loads no other file.

    Raises:
        BadInput: there is no run, it is not evaluated yet, or a file is damaged.
    """
    results = read(run)
    sections = dict(_sections(results))
    html = page.document(results.title, [_head(results), page.contents(sections), *sections.values()])
    path = output or run.report
    write_output(path, html)
    return path


def _sections(results: Results) -> Iterator[tuple[str, str]]:
    """Return the title and the HTML of each section that has content."""
    parts = {
        "Figures": _figures(results),
        "Learning curves": _learning_curves(results),
        "Search": search.fragments(results),
        "Confusions": _confusions(results),
        "Classes": _classes(results),
        "Mistakes": _mistakes(results),
        "Calibration": _calibration(results),
        "Cost": _cost(results),
        "Configuration": _configuration(results),
        "Provenance": _provenance(results),
    }
    return ((title, page.section(title, *fragments)) for title, fragments in parts.items() if fragments)


def _head(results: Results) -> str:
    low, high = results.metrics["test"]["accuracy_interval"]
    alert = warning(results)
    training, test, validation = results.training, results.metrics["test"], results.metrics.get("validation")
    epochs = len(training["history"]["loss"])
    tiles = [
        ("test accuracy", f"{test['accuracy']:.2%}", f"95% interval {low:.2%} to {high:.2%}"),
        ("validation accuracy", f"{validation['accuracy']:.2%}", f"{validation['images']:,} images held back")
        if validation
        else ("training images", f"{results.metrics['train']['images']:,}", "none held back for validation"),
        ("macro F1", f"{test['macro']['f1']:.4f}", "mean over the ten classes"),
        ("calibration error", f"{test['expected_calibration_error']:.2%}", "confidence against accuracy"),
        ("training", f"{training['seconds']:.0f} s", f"{epochs} epochs, {training['images_per_second']:,.0f} images/s"),
        ("parameters", f"{results.metrics['model']['parameters']:,}", _layers(results)),
    ]
    return "".join(
        [
            page.element("h1", results.title),
            page.element("p", alert, "alert") if alert else "",
            page.element("p", verdict(results), "verdict"),
            page.element("p", results.recipe.description, "muted"),
            page.tiles(tiles),
        ]
    )


def _layers(results: Results) -> str:
    return f"hidden layers {'-'.join(map(str, results.recipe.model.hidden)) or 'none'}"


def _figures(results: Results) -> list[str]:
    rows = [
        [
            figure.name,
            _decimals(figure.value),
            _decimals(figure.reference),
            "" if figure.reference is None else f"{figure.value - figure.reference:+.4f}",
        ]
        for figure in results.figures
    ]
    compared = page.table(["", "this run", "reference", "difference"], rows)
    return [page.columns([compared, page.table([], facts(results).items())])]


def _learning_curves(results: Results) -> list[str]:
    history, kept_epoch = results.training["history"], results.training["best_epoch"] + 1
    charts = [
        plots.curves(
            name.capitalize(),
            "epoch",
            [
                plots.Series(split, history[prefix + name])
                for split, prefix in (("training", ""), ("validation", "val_"))
                if prefix + name in history
            ],
            mark=kept_epoch,
        )
        for name in ("loss", "accuracy")
    ]
    if len(set(history["learning_rate"])) > 1:
        charts.append(plots.curves("Learning rate", "epoch", [plots.Series("", history["learning_rate"], "steps")]))
    note = (
        f"The dotted line marks epoch {kept_epoch}, whose weights were kept. The training figures are those of the "
        "epoch's steps, with dropout and changing weights"
    )
    note += "; so they may be below validation's." if "val_loss" in history else "."
    return [page.element("p", note, "muted"), page.columns(charts)]


def _confusions(results: Results) -> list[str]:
    test = results.metrics["test"]
    names = [row["name"] for row in test["per_class"]]
    matrix = test["confusion_matrix"]
    off_diagonal = [
        (count, true, predicted)
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    most = sorted(off_diagonal, key=lambda cell: -cell[0])[:_CONFUSIONS]
    rows = [
        (f"{names[true]} taken for {names[predicted]}", str(count), f"{count / sum(matrix[true]):.1%}")
        for count, true, predicted in most
    ]
    note = "A row is a true class, a column a predicted one; the cells count test images."
    fragments = [page.heat_table(names, matrix)]
    if rows:
        fragments.append(page.table(["the most frequent", "images", "of the class"], rows))
    return [page.element("p", note, "muted"), page.columns(fragments)]


def _classes(results: Results) -> list[str]:
    test = results.metrics["test"]
    rows = [(row["name"], row) for row in test["per_class"]]
    rows += [(f"{mean} mean", test[mean]) for mean in ("macro", "weighted")]
    return [
        page.bar_table(
            ["", "precision", "recall", "F1"],
            ((name, [row[key] for key in ("precision", "recall", "f1")]) for name, row in rows),
        )
    ]


def _mistakes(results: Results) -> list[str]:
    arrays, names = results.predictions, results.metrics["data"]["classes"]
    pictures = []
    for index, image in zip(arrays["mistakes"], arrays["mistake_images"], strict=True):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG", optimize=True)
        true, predicted = names[arrays["labels"][index]], names[arrays["predicted"][index]]
        caption = f"is {true}\nsaid {predicted}\n{arrays['confidence'][index]:.1%} sure\nno. {index}"
        pictures.append((png.getvalue(), caption))
    note = "The wrong predictions that the model was most sure of; the number counts the test images from 0."
    return [page.element("p", note, "muted"), page.gallery(pictures)] if pictures else []


def _calibration(results: Results) -> list[str]:
    bins = results.metrics["test"]["calibration"]
    note = (
        "On the dotted line the model is right as often as it says; below it, it is too sure. A disc stands for a "
        "fifteenth of the range of confidence, its area for the number of test images there."
    )
    rows = [
        (f"{row['bin'] / 15:.2f} to {(row['bin'] + 1) / 15:.2f}", f"{row['images']:,}",
         _decimals(row["confidence"]), _decimals(row["accuracy"]))
        for row in bins
    ]  # fmt: skip
    picture = plots.reliability(
        "Accuracy over confidence", ((row["images"], row["confidence"], row["accuracy"]) for row in bins)
    )
    return [
        page.element("p", note, "muted"),
        page.columns([picture, page.table(["confidence", "images", "mean", "accuracy"], rows)]),
    ]


def _cost(results: Results) -> list[str]:
    costs = {
        "train": (results.training["seconds"], results.training["images_per_second"]),
        "eval": (results.metrics["seconds"], results.metrics["images_per_second"]),
    }
    seconds = [float(trial["seconds"]) for trial in results.trials if trial.get("seconds")]
    if seconds:
        costs = {"tune": (sum(seconds), None), **costs}
    rows = [
        (
            job,
            f"{spent:,.1f}",
            "" if speed is None else f"{speed:,.0f}",
            str(results.jobs.get(job, {}).get("devices", "not recorded")),
        )
        for job, (spent, speed) in costs.items()
    ]
    note = "The images/s of the training are those of its median epoch; the first one is longer, as it compiles."
    note += " The seconds of the search are those of its trials, added up over its workers." * bool(seconds)
    return [page.table(["", "seconds", "images/s", "device"], rows), page.element("p", note, "muted")]


def _configuration(results: Results) -> list[str]:
    chosen = results.best["values"] if results.best else {}
    settings = config.to_dict(results.recipe)
    rows = [
        (key, json.dumps(value), "search" if key in chosen else "recipe")
        for section in ("data", "model", "training")
        for key, value in ((f"{section}.{name}", value) for name, value in settings[section].items())
    ]
    return [page.details("What each key was set to", page.table(["", "value", "from"], rows))]


def _provenance(results: Results) -> list[str]:
    # The hashes are the same for every job, so they have a table of their own.
    jobs = {
        name: _flat({fact: value for fact, value in job.items() if fact != "data" and value is not None})
        for name, job in results.jobs.items()
    }
    names = dict.fromkeys(name for job in jobs.values() for name in job)
    hashes = {results.run.model.name: results.metrics["model"]["sha256"], **results.metrics["data"]["sha256"]}
    return [
        page.table(["", *jobs], ([name, *(job.get(name, "") for job in jobs.values())] for name in names))
        if names
        else page.element("p", "What the jobs ran with is not recorded.", "muted"),
        page.details("SHA-256 of the model and the data", page.table([], hashes.items())),
    ]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat
