"""The table and the page of a finished run."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist import config, data, evaluate, page, report, results, rundir
from fmnist.errors import BadInput
from fmnist.rundir import RunDir

VOID = {"meta", "link", "br", "input", "img"}
SEARCH = {
    "space": {
        "model.hidden": {"layers": (1, 2), "units": (64, 128)},
        "training.learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"},
    }
}
REFERENCE = {"validation_accuracy": 0.901, "test_accuracy": 0.5, "macro_precision": 0.8736, "macro_recall": 0.8742}
SHA256 = dict.fromkeys(data.SHA256, "ab" * 32)
# Trial 02 failed; 01 is the best; 03 has not ended.
TRIALS = [
    ["00", "COMPLETED", 0.85, 10, 12.5, "tuner0", "", "[64]", 0.0012345678],
    ["01", "COMPLETED", 0.9025, 10, 13.5, "tuner0", "", "[128, 64]", 0.003],
    ["02", "FAILED", "", 1, 1.5, "tuner0", "Traceback:\n  here\nthe loss is <b>NaN</b>\n", "[64, 64]", 0.01],
    ["03", "RUNNING", "", 0, 0, "tuner1", "", "[128]", 0.002],
    ["04", "COMPLETED", 0.88, 10, 13.5, "tuner1", "", "[64]", 0.0005],
]


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps the text, the tags and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def rows(self, *cells: str) -> bool:
        return "\n".join(cells) in self.text


def make_run(path: Path, *, search: bool = True, fashion: bool = True, **recipe: Any) -> RunDir:
    settings = {"name": "tuned-mlp", "description": "A search.", "reference": REFERENCE, **recipe}
    run = RunDir(path)
    claimed = config.resolve(settings | ({"search": SEARCH} if search else {}), "test")
    run.claim(claimed, seed=7)
    values = {"model.hidden": [128, 64], "training.learning_rate": 0.003}
    trained = config.to_dict(config.replace(claimed, values) if search else claimed)
    run.record("train", devices="1 CPU (made by hand), float32", data=SHA256)
    rundir.write_json(
        run.history,
        {
            "history": {
                "loss": [0.9, 0.6, 0.5],
                "accuracy": [0.7, 0.8, 0.85],
                "val_loss": [0.8, 0.55, 0.6],
                "val_accuracy": [0.72, 0.82, 0.81],
                "learning_rate": [1e-3] * 3,
            },
            "settings": {section: trained[section] for section in ("data", "model", "training")},
            "best_epoch": 1,
            "seconds": 31.2,
            "images_per_second": 21_000.0,
        },
    )
    random = np.random.default_rng(0)
    y_true = np.repeat(np.arange(10), 100)
    logits = random.normal(size=(1000, 10)) + 2 * np.eye(10)[y_true]
    source = data.Source(path, SHA256, fashion)
    names = data.classes(source)
    rundir.write_json(
        run.metrics,
        {
            "recipe": "tuned-mlp",
            "seed": 7,
            "model": {"sha256": "cd" * 32, "parameters": 109_386},
            "data": {"is_fashion_mnist": fashion, "sha256": SHA256, "classes": names},
            "train": {"images": 54_000, "accuracy": 0.9512, "loss": 0.14},
            "validation": {"images": 6000, "accuracy": 0.9034, "loss": 0.28},
            "test": evaluate.figures(y_true, logits, names),
        },
    )
    if search:
        best = {"trial": "01", "objective": "val_accuracy", "score": 0.9025, "epoch": 7, "values": values}
        rundir.write_json(run.best, best)
        with run.trials.open("w", newline="") as file:
            columns = ["trial", "status", "score", "epochs", "seconds", "worker", "message"]
            csv.writer(file).writerows([[*columns, "model.hidden", "training.learning_rate"], *TRIALS])
    return run


def test_summary_of_a_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.model.touch()
    text = report.summary(run)
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 80
    accuracy = results.read(run).metrics["test"]["accuracy"]
    assert f"{accuracy:.2%} of 1,000 test images" in text
    assert f"{100 * (accuracy - 0.5):.2f} points above the reference of 50.00%" in " ".join(text.split())
    assert re.search(r"^validation accuracy +0\.9034 +0\.9010$", text, re.MULTILINE)
    assert re.search(r"^test accuracy +0\.\d{4} +0\.\d{4} to 0\.\d{4} +0\.5000$", text, re.MULTILINE)
    flat = " ".join(text.split())
    for said in (
        "tuned-mlp, seed 7",
        "hidden layers 128-64, relu",
        "109,386 parameters",
        "learning rate 0.003",
        "3 epochs in 31.2 s (21,000 images/s), weights of epoch 2",
        "3 trials and 2 without a score, best val_accuracy 0.9025 in trial 01",
        "1 CPU (made by hand), float32",
        "model.keras, metrics.json",
    ):
        assert said in flat
    assert "FASHION" not in text


def test_summary_of_a_fixed_recipe_without_reference(tmp_path: Path) -> None:
    text = report.summary(make_run(tmp_path / "run", search=False, reference=None, model={"hidden": (300, 80, 50)}))
    assert "hidden layers 300-80-50" in text
    assert "trials" not in text
    assert "points" not in text


def test_summary_says_below_the_reference(tmp_path: Path) -> None:
    text = report.summary(make_run(tmp_path / "run", reference={"test_accuracy": 0.99}))
    assert "points below the reference of 99.00%" in " ".join(text.split())


def test_other_data_comes_first_and_is_compared_with_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fashion=False)
    text = report.summary(run)
    assert text.startswith("*** NOT FASHION-MNIST")
    assert "points" not in text
    assert "0.9010" not in text
    html = Page(report.write(run).read_text())
    assert "NOT FASHION-MNIST" in html.text
    assert ("p", {"class": "alert"}) in html.elements


def test_page_of_a_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert report.write(run) == run.report
    html = Page(run.report.read_text())
    titles = re.findall(r"<h2>(.*?)</h2>", run.report.read_text())
    assert titles == [
        "Figures", "Learning curves", "Search", "Confusion matrix", "Classes", "Configuration", "Provenance"
    ]  # fmt: skip
    accuracy = results.read(run).metrics["test"]["accuracy"]
    assert html.text.index(f"{accuracy:.2%} of 1,000 test images") < html.text.index("Learning curves")
    assert html.rows("model.hidden", "[128, 64]", "search")
    assert html.rows("training.learning_rate", "0.003", "search")
    assert html.rows("training.optimizer", '"adam"', "recipe")
    assert html.rows("validation accuracy", "0.9034", "0.9010", "+0.0024")
    assert html.rows("devices", "1 CPU (made by hand), float32")
    assert html.rows("model.keras", "cd" * 32)
    assert html.text.count("Ankle boot") >= 3


def test_a_better_trial_since_the_training_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "found better since" not in report.summary(run)
    rundir.write_json(run.best, rundir.read_json(run.best) | {"values": {"model.hidden": [512]}})
    text = Page(report.write(run).read_text()).text
    assert "found better since" in text
    assert "128-64" in report.summary(run)


def test_trials_are_sorted_the_best_first_and_those_without_a_score_last(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = Page(report.write(run).read_text()).text
    table = text[text.index("Trials, the best first") :]
    rows = re.findall(r"^(0\d)\n(?:COMPLETED|FAILED|RUNNING)", table, re.MULTILINE)
    assert rows == ["01", "04", "00", "02", "03"]
    assert "0.001235" in table
    assert "Traceback" not in table


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", search=False)
    rundir.write_json(run.config, rundir.read_json(run.config) | {"recipe": {
        "name": "x", "description": "", "search": {**SEARCH, "objective": "val_loss"}}})  # fmt: skip
    run.trials.write_text("trial,status,score\n00,COMPLETED,0.5\n01,COMPLETED,0.3\n02,COMPLETED,0.4\n03,FAILED,\n")
    text = Page(report.write(run).read_text()).text
    assert re.findall(r"^(0\d)\n[CF]", text[text.index("Trials") :], re.MULTILINE) == ["01", "02", "00", "03"]


@pytest.mark.parametrize("trials", [None, "trial,status,score,message\n00,FAILED,,out of memory\n"])
def test_page_without_a_scored_trial(tmp_path: Path, trials: str | None) -> None:
    run = make_run(tmp_path / "run", search=False)
    if trials:
        run.trials.write_text(trials)
    html = Page(report.write(run).read_text())
    assert "Search" not in html.text
    assert "Confusion matrix" in html.text


def test_page_loads_nothing_and_has_no_address(tmp_path: Path) -> None:
    html = report.write(make_run(tmp_path / "run")).read_text()
    assert not re.search(r"https?:|//\w|@import|url\(|<script", html)
    loads = [v for _, attrs in Page(html).elements for key, v in attrs.items() if key in ("src", "href", "srcset")]
    assert loads == ["data:,"]


def test_page_escapes_what_it_is_told(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script>\"&amp;"
    run = make_run(tmp_path / nasty.replace("/", "_"), name=nasty, description=nasty)
    html = report.write(run).read_text()
    parsed = Page(html)
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert nasty in parsed.text
    assert "the loss is <b>NaN</b>" in parsed.text
    assert "b" not in {tag for tag, _ in parsed.elements}


def test_not_evaluated_yet_names_file_and_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.metrics.unlink()
    for job in (report.summary, report.write):
        with pytest.raises(BadInput, match=r"metrics\.json is missing; run `fmnist eval .*run` first"):
            job(run)
    assert not run.report.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.json", '{"test": '),
        ("metrics.json", "{}"),
        ("history.json", "[]"),
        ("best.json", '{"trial": "01"}'),
        ("best.json", '{"trial": "01", "score": 0.9, "values": {"model.hiden": 1}}'),
        ("trials.csv", "trial,score\n00,high\n"),
        ("trials.csv", "trial\n00\n"),
    ],
)
def test_damaged_file_keeps_the_earlier_report(tmp_path: Path, name: str, text: str) -> None:
    run = make_run(tmp_path / "run")
    run.report.write_text("earlier")
    (run.path / name).write_text(text)
    with pytest.raises(BadInput):
        report.write(run)
    assert run.report.read_text() == "earlier"


def drawn(html: str, tag: str) -> list[list[tuple[float, float]]]:
    """The points of each polyline or circle, the legend's left out."""
    shapes = [attrs for found, attrs in Page(html).elements if found == tag]
    if tag == "circle":
        points = [[(float(str(shape["cx"])), float(str(shape["cy"])))] for shape in shapes]
    else:
        points = [
            [(float(x), float(y)) for x, y in (point.split(",") for point in str(shape["points"]).split())]
            for shape in shapes
        ]
    return [shape for shape in points if shape[0][1] != 12]


def test_chart_scales_to_its_values_and_leaves_out_what_is_missing() -> None:
    html = page.chart("<Loss>", "epoch", [page.Series("a", [1.0, None, 3.0]), page.Series("b", [2.0])], mark=3)
    [[(x1, y1), (x2, y2)]] = drawn(html, "polyline")
    assert 0 < x1 < x2 < 480
    assert 0 < y2 < y1 < 270
    mark = next(attrs for _, attrs in Page(html).elements if attrs.get("class") == "mark")
    assert float(str(mark["x1"])) == x2
    # A value alone is still seen, halfway.
    [[(x3, y3)]] = drawn(html, "circle")
    assert x3 == x1
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.1)
    assert re.findall(r"text-anchor=end>([\d.]+)<", html) == ["1", "1.5", "2", "2.5", "3"]


def test_best_so_far_goes_in_steps() -> None:
    [points] = drawn(page.chart("Score", "trial", [page.Series("best", [1.0, 2.0, 2.0], "steps")]), "polyline")
    (_, y1), (x2, y2), (x3, y3), *_ = points
    assert x2 == x3
    assert y1 == y2 > y3


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0]])
def test_chart_of_a_constant(values: list[float]) -> None:
    assert "nan" not in page.chart("Loss", "epoch", [page.Series("a", values)])


def test_columns_of_numbers_are_aligned_and_others_are_not() -> None:
    def is_number(*column: str) -> bool:
        return 'class="number"' in page.table(["", "x"], [["name", cell] for cell in column])

    assert is_number("0.9034", "", "+0.0024", "-1", "1e-05", "10,000", "85%")
    assert not any(map(is_number, ["relu", "[128, 64]", "2026-01-01T00:00:00Z", "3.11.2, 64"]))
    assert not is_number("0.2", "relu")
