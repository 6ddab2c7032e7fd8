"""The table and the page of a finished run."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from runs import SEARCH, Page, make_run

from fmnist import files
from fmnist.errors import BadInput
from fmnist.report import comparison, page, results
from fmnist.report import one as report
from fmnist.run.folder import RunDir


def test_summary_of_a_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
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
        "3 epochs in 31.2 s (21,000 images/s in the median epoch), weights of epoch 2",
        "3 trials and 2 without a score, best val_accuracy 0.9025 in trial 01",
        "1 CPU (made by hand), float32",
        "model.keras, metrics.json",
    ):
        assert said in flat
    assert "FASHION" not in text


def test_summary_of_a_fixed_recipe_without_reference(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "model": {"hidden": (300, 80), "receptive_field": 2},
        "training": {"l1_decay": (0.03, 0.02, 0), "l1_locality": 4},
    }
    text = report.summary(make_run(tmp_path / "run", search=False, reference=None, **settings))
    assert "hidden layers 300-80" in text
    assert "L1 decay 0.03/0.02/0 of locality 4" in " ".join(text.split())
    assert "L1" not in report.summary(make_run(tmp_path / "plain"))
    assert "trials" not in text
    assert "points" not in text
    assert "reference" not in text


def test_summary_says_below_the_reference(tmp_path: Path) -> None:
    text = report.summary(make_run(tmp_path / "run", reference={"test_accuracy": 0.99}))
    assert "points below the reference of 99.00%" in " ".join(text.split())


def test_averaged_figures_have_a_line_of_their_own_if_they_are_of_this_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    plain = report.summary(run)
    metrics = files.read_json(run.metrics)
    test = metrics["test"] | {"accuracy": 0.98765, "accuracy_interval": [0.98, 0.99]}
    files.write_json(run.averaged_metrics, metrics | {"test": test, "views": 10})
    said = "test accuracy 0.9877 (95% interval 0.9800 to 0.9900), over 10 views of each image"
    assert said in " ".join(report.summary(run).split())
    assert set(plain.splitlines()) < set(report.summary(run).splitlines())
    assert said in Page(report.write(run).read_text()).text
    files.write_json(run.averaged_metrics, metrics | {"test": test, "views": 10, "model": {"sha256": "ef" * 32}})
    assert report.summary(run) == plain


def test_a_run_with_a_key_that_is_gone_is_still_reported(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run", search=False), make_run(tmp_path / "other", search=False, seed=1)
    assert "also trained with" not in report.summary(run)
    # As the versions before wrote it: each key, used or not.
    for path, value in ((run, 0.9), (other, 0.0)):
        config = files.read_json(path.config)
        training = {**config["recipe"]["training"], "distillation": value}
        training["augment"] = {**training["augment"], "erase": 0.0, "mixup": 0.0}
        files.write_json(path.config, {**config, "recipe": {**config["recipe"], "training": training}})
        history = files.read_json(path.history)
        history["settings"]["training"] |= {"distillation": value}
        files.write_json(path.history, history)
    said = "training.distillation=0.9, which this version no longer has"
    assert said in report.summary(run)
    assert said in Page(report.write(run).read_text()).text
    assert "also trained with" not in report.summary(other)
    names = [group.name for group in comparison.groups(comparison.read_all([other, run]))]
    assert names == ["tuned-mlp", "tuned-mlp training.distillation=0.9"]

    recipe, seed = run.recipe()
    with pytest.raises(BadInput, match="it differs in training.distillation"):
        run.check(recipe, seed)
    other.check(other.recipe()[0], 1)


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
        "Figures", "Learning curves", "Search", "Confusions", "Classes", "Mistakes", "Calibration", "Cost",
        "Configuration", "Provenance",
    ]  # fmt: skip
    links = [attrs["href"] for tag, attrs in html.elements if tag == "a"]
    places = [f"#{attrs['id']}" for tag, attrs in html.elements if tag == "section"]
    assert links == places
    accuracy = results.read(run).metrics["test"]["accuracy"]
    assert html.text.index(f"{accuracy:.2%} of 1,000 test images") < html.text.index("Learning curves")
    assert html.rows("model.hidden", "[128, 64]", "search")
    assert html.rows("training.learning_rate", "0.003", "search")
    assert html.rows("training.optimizer", '"adam"', "recipe")
    assert html.rows("validation accuracy", "0.9034", "0.9010", "+0.0024")
    assert html.rows("devices", "1 CPU (made by hand), float32")
    assert html.rows("model.keras", files.read_json(run.metrics)["model"]["sha256"])
    assert html.text.count("Ankle boot") >= 3
    assert html.rows("eval", "2.5", "28,000", "not recorded")
    assert html.rows("tune", "41.0", "not recorded")


def test_a_better_trial_since_the_training_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "found better since" not in report.summary(run)
    files.write_json(run.best, files.read_json(run.best) | {"values": {"model.hidden": [512]}})
    text = Page(report.write(run).read_text()).text
    assert "found better since" in text
    assert "128-64" in report.summary(run)


def test_other_data_does_not_hide_a_better_trial(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fashion=False)
    files.write_json(run.best, files.read_json(run.best) | {"values": {"model.hidden": [512]}})
    said = " ".join(report.summary(run).split())
    assert "NOT FASHION-MNIST" in said
    assert "found better since" in said


def test_trials_are_sorted_the_best_first_and_those_without_a_score_last(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = Page(report.write(run).read_text()).text
    table = text[text.index("Trials, the longest trained first") :]
    rows = re.findall(r"^(0\d)\n(?:COMPLETED|FAILED|RUNNING)", table, re.MULTILINE)
    assert rows == ["01", "04", "00", "02", "03"]
    assert "0.001235" in table
    assert "Traceback" not in table


def test_trials_of_few_epochs_do_not_compare_with_those_of_many(tmp_path: Path) -> None:
    """Hyperband: 03 is 02 promoted, and 04 is 00, which had luck in its two epochs."""
    run = hyperband(tmp_path / "run")
    html = report.write(run).read_text()
    text = Page(html).text
    table = text[text.index("Trials, the longest trained first") :]
    assert re.findall(r"^(0\d)\n0\.\d{4}", table, re.MULTILINE) == ["03", "04", "00", "02", "01"]
    for said in ("at most 2 epochs", "at most 6 epochs", "Trials of 2 and 6 epochs have colours of their own"):
        assert said in text
    # Each has its best so far, of its own trials.
    progress = html[html.index("the best so far") :].split("</figure>")[0]
    lines = re.findall(r'<polyline class="(series\d)" points="([^"]*)"', progress)
    assert [name for name, _ in lines] == ["series0", "series1"]
    # The best of either is drawn as the best.
    assert sorted(re.findall(r"--share:([\d.]+)", html)[:5]) == ["0.000", "0.000", "0.500", "1.000", "1.000"]


def test_tooltips_hold_the_parameters_and_the_table_only_what_varies(tmp_path: Path) -> None:
    run = hyperband(tmp_path / "run")
    html = report.write(run).read_text()
    assert (
        "<title>trial 02: 0.8000, at most 2 epochs\nhidden 128-64\noptimizer adam\nlearning_rate 0.003</title>" in html
    )
    page = Page(html[html.index("<h3>Trials, the longest trained first") :].split("</section>")[0])
    assert "The same for all: status COMPLETED, worker worker-0, optimizer adam." in page.text
    heads = page.text.split("learning_rate\n")[0].split(".\n")[-1].split()
    assert heads == ["trial", "score", "epochs", "seconds", "hidden"]
    assert page.rows("02", "0.8000", "2", "2.5", "128-64", "0.003")


def test_the_learning_curves_of_the_trials_are_those_of_the_search(tmp_path: Path) -> None:
    run = hyperband(tmp_path / "run")
    assert "val_accuracy by epoch" not in report.write(run).read_text()
    for trial, values in {"00": [0.5, 0.7], "03": [0.6, float("nan"), 0.9]}.items():
        keep(run, trial, values)
    (run.search / "trial_01").mkdir()
    (run.search / "trial_01" / "trial.json").write_text("{}")
    html = report.write(run).read_text()
    chart = html[html.index("val_accuracy by epoch") :].split("</figure>")[0]
    lines = re.findall(r'points="([^"]*)"><title>trial (\d\d)', chart)
    # The best one is drawn last.
    assert [(trial, len(points.split())) for points, trial in lines] == [("00", 2), ("03", 2)]


def keep(run: RunDir, trial: str, values: list[float]) -> None:
    """As Keras Tuner does."""
    seen = [{"value": [value], "step": step} for step, value in enumerate(values)]
    history = {"val_accuracy": {"observations": seen, "direction": "max"}}
    (run.search / f"trial_{trial}").mkdir(parents=True)
    (run.search / f"trial_{trial}" / "trial.json").write_text(json.dumps({
        "trial_id": trial, "status": "COMPLETED", "hyperparameters": {"space": [], "values": {}},
        "metrics": {"metrics": history}, "score": 0.5, "best_step": 0, "message": None, "worker": "worker-0",
    }))  # fmt: skip


def hyperband(path: Path) -> RunDir:
    run = make_run(path)
    own = ["trial", "status", "score", "epochs", "seconds", "worker", "message"]
    layers = [f"model.{name}" for name in ("layers", "units_1", "units_2")]
    rest = ["training.optimizer", "training.learning_rate", "tuner/epochs", "tuner/round"]
    rows = [
        ["00", "COMPLETED", 0.95, 2, 2.5, "worker-0", "", 1, 64, "", "adam", 0.01, 2, 0],
        ["01", "COMPLETED", 0.7, 2, 2.5, "worker-0", "", 1, 128, "", "adam", 0.02, 2, 0],
        ["02", "COMPLETED", 0.8, 2, 2.5, "worker-0", "", 2, 128, 64, "adam", 0.003, 2, 0],
        ["03", "COMPLETED", 0.9, 6, 7.5, "worker-0", "", 2, 128, 64, "adam", 0.003, 6, 1],
        ["04", "COMPLETED", 0.85, 6, 7.5, "worker-0", "", 1, 64, "", "adam", 0.01, 6, 1],
    ]
    with run.trials.open("w", newline="") as file:
        csv.writer(file).writerows([[*own, *layers, *rest], *rows])
    return run


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", search=False)
    files.write_json(run.config, files.read_json(run.config) | {"recipe": {
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
    assert "Confusions" in html.text


def test_page_loads_nothing_and_has_no_address(tmp_path: Path) -> None:
    html = report.write(make_run(tmp_path / "run")).read_text()
    # The mistakes are in the page itself.
    html = re.sub(r"data:image/png;base64,[\w+/=]+", "data:", html)
    assert not re.search(r"https?:|//\w|@import|url\(", html)
    loads = [v for _, attrs in Page(html).elements for key, v in attrs.items() if key in ("src", "href", "srcset")]
    assert {str(address)[:5] for address in loads if not str(address).startswith("#")} == {"data:"}


def test_page_escapes_what_it_is_told(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script>\"&amp;"
    run = make_run(tmp_path / nasty.replace("/", "_"), name=nasty, description=nasty)
    html = report.write(run).read_text()
    parsed = Page(html)
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert nasty in parsed.text
    assert "the loss is <i>NaN</i>" in parsed.text
    assert "i" not in {tag for tag, _ in parsed.elements}


@pytest.mark.parametrize("name", ["metrics.json", "predictions.npz"])
def test_not_evaluated_yet_names_file_and_command(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    (run.path / name).unlink()
    run.model.touch()
    for job in (report.summary, report.write):
        with pytest.raises(BadInput, match=rf"{name} is missing; run `fmnist eval .*run` first"):
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
        ("trials.csv", "trial,score,seconds\n00,0.9,long\n"),
        ("trials.csv", "status,score\nCOMPLETED,0.9\n"),
        ("predictions.npz", "PK"),
    ],
)
def test_damaged_file_keeps_the_earlier_report(tmp_path: Path, name: str, text: str) -> None:
    run = make_run(tmp_path / "run")
    run.report.write_text("earlier")
    (run.path / name).write_text(text)
    with pytest.raises(BadInput):
        report.write(run)
    assert run.report.read_text() == "earlier"


def test_the_mistakes_are_shown_the_most_confident_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    html = Page(report.write(run).read_text())
    said = [float(share) for share in re.findall(r"^([\d.]+)% sure$", html.text, re.MULTILINE)]
    assert len(said) == 24
    assert said == sorted(said, reverse=True)
    arrays = results.read(run).predictions
    first = arrays["mistakes"][0]
    names = results.read(run).metrics["data"]["classes"]
    caption = (f"is {names[arrays['labels'][first]]}", f"said {names[arrays['predicted'][first]]}")
    assert html.rows(*caption)
    assert len([1 for tag, _ in html.elements if tag == "img"]) == 24


def test_a_score_far_behind_does_not_flatten_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "drawn at the edge" not in report.write(run).read_text()
    run.trials.write_text(run.trials.read_text().replace("0.85", "0.1"))
    html = report.write(run).read_text()
    assert "drawn at the edge" in html
    assert "trial 00: 0.1000" in html


def test_the_page_goes_where_it_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert report.write(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert not run.report.exists()


def test_columns_of_numbers_are_aligned_and_others_are_not() -> None:
    def is_number(*column: str) -> bool:
        return 'class="number"' in page.table(["", "x"], [["name", cell] for cell in column])

    assert is_number("0.9034", "", "+0.0024", "-1", "1e-05", "10,000", "85%")
    assert not any(map(is_number, ["relu", "[128, 64]", "2026-01-01T00:00:00Z", "3.11.2, 64"]))
    assert not is_number("0.2", "relu")
