"""Several runs side by side: the statistics over seeds, the paired test, the page."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import SEARCH, Page, make_run

from fmnist import files
from fmnist.errors import BadInput
from fmnist.report import comparison
from fmnist.report import several as report_several
from fmnist.run.folder import RunDir


def seeds(folder: Path, name: str, count: int, margin: float = 2) -> list[RunDir]:
    return [
        make_run(folder / f"{name}-seed{seed}", search=False, name=name, seed=seed, margin=margin)
        for seed in range(count)
    ]


def test_mean_and_standard_deviation_over_the_seeds() -> None:
    spread = comparison.Spread([0.90, 0.91, 0.95])
    assert spread.mean == pytest.approx(0.92)
    # Of the sample: the squares 0.0004, 0.0001 and 0.0009 over n - 1 = 2.
    assert spread.deviation == pytest.approx(0.0007**0.5)
    assert str(spread) == "0.9200 ± 0.0265"
    assert str(comparison.Spread([0.9])) == "0.9000"


def test_runs_of_one_recipe_are_a_group_and_another_setting_makes_another(tmp_path: Path) -> None:
    runs = seeds(tmp_path, "plain", 3)
    runs.insert(1, make_run(tmp_path / "wide", search=False, name="plain", seed=0, training={"batch_size": 256}))
    groups = comparison.groups(comparison.read_all(runs))
    assert [(group.name, len(group.runs), group.seeds) for group in groups] == [
        ("plain", 3, "seeds 0, 1, 2"),
        ("plain training.batch_size=256", 1, "seed 0"),
    ]
    accuracies = [files.read_json(run.metrics)["test"]["accuracy"] for run in (runs[0], *runs[2:])]
    assert groups[0].spread("test accuracy").values == pytest.approx(accuracies)


def test_what_is_said_of_a_recipe_makes_no_other_group(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{seed}", search=False, seed=seed, description=f"a text {seed}") for seed in range(2)]
    assert [len(group.runs) for group in comparison.groups(comparison.read_all(runs))] == [2]


def test_a_hyperparameter_that_is_not_searched_makes_another_group(tmp_path: Path) -> None:
    smaller = SEARCH | {"space": dict(list(SEARCH["space"].items())[:1])}
    run, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    settings = files.read_json(other.config)
    files.write_json(other.config, settings | {"recipe": settings["recipe"] | {"search": smaller}})
    names = [group.name for group in comparison.groups(comparison.read_all([run, other]))]
    assert names == ["tuned-mlp", "tuned-mlp search.space.training.learning_rate=null"]


def test_only_the_settings_that_differ_are_told(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", search=False, name="plain", training={"batch_size": 256}, description="Another."),
        make_run(tmp_path / "c", search=False, name="last", model={"hidden": (300, 80)}),
    ]
    found = comparison.groups(comparison.read_all(runs))
    rows = dict(comparison.differences(found))
    assert rows.pop("training.batch_size") == ["128", "256", "128"]
    assert rows.pop("model.hidden") == ["256, 128", "256, 128", "300, 80"]
    assert rows.pop("search.space.model.hidden") == ["1 to 2 layers of 64, 128", "", ""]
    assert rows.pop("search.space.training.learning_rate") == ["0.0001 to 0.01, logarithmic", "", ""]
    assert all(key.startswith("search.") for key in rows)
    page = Page(report_several.write(runs).read_text())
    assert page.rows("training.batch_size", "128", "256", "128")
    assert comparison.differences(found[:1]) == []
    assert (
        "Differences" not in Page(report_several.write(runs[:1] + [make_run(tmp_path / "d", seed=8)]).read_text()).text
    )


def test_a_recipe_that_differs_in_much_has_a_short_name(tmp_path: Path) -> None:
    training = {"batch_size": 256, "learning_rate": 0.5, "weight_decay": 0.25, "epochs": 7}
    runs = [make_run(tmp_path / "a", search=False), make_run(tmp_path / "b", search=False, training=training)]
    assert [group.name for group in comparison.groups(comparison.read_all(runs))] == ["tuned-mlp", "tuned-mlp (2)"]


def test_no_name_is_cut_and_the_legend_has_them_all(tmp_path: Path) -> None:
    names = [f"{number}-a-recipe-of-a-name-that-is-rather-long" for number in range(4)]
    runs = [make_run(tmp_path / f"{name}-seed0", search=False, name=name) for name in names]
    html = report_several.write(runs).read_text()
    legend = html[html.index("<figcaption>Validation loss") :].split("</div>")[0]
    for name in names:
        assert f"{name}</span>" in legend
        assert f"<span>{name}-seed0</span>" in html


def test_mcnemars_test_is_the_exact_one(tmp_path: Path) -> None:
    """10 images that the first alone has right and 2 that the second alone has: p = 2 (1 + 12 + 66) / 2^12."""
    runs = seeds(tmp_path, "plain", 2)
    labels = np.zeros(100, np.uint8)
    first, second = labels.copy(), labels.copy()
    first[:2] = 1
    second[2:12] = 1
    first[50:60] = second[50:60] = 3
    for run, predicted in zip(runs, (first, second), strict=True):
        with np.load(run.predictions) as arrays:
            np.savez(run.predictions, **{**arrays, "labels": labels, "predicted": predicted})
    (pair,) = comparison.pairs(comparison.read_all(runs))
    assert (pair.first_only, pair.second_only) == (10, 2)
    assert pair.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert pair.difference == pytest.approx(-0.08)


def test_a_model_does_not_differ_from_its_equal(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, search=False) for name in ("a", "b")]
    (pair,) = comparison.pairs(comparison.read_all(runs))
    assert (pair.p, pair.difference) == (1.0, 0.0)


def test_models_are_paired_by_seed_across_recipes(tmp_path: Path) -> None:
    found = comparison.read_all([*seeds(tmp_path, "good", 3, margin=3), *seeds(tmp_path, "bad", 2, margin=1)])
    pairs = comparison.pairs(found)
    assert [(pair.first.run.path.name, pair.second.run.path.name) for pair in pairs] == [
        ("good-seed0", "bad-seed0"),
        ("good-seed1", "bad-seed1"),
    ]
    assert all(pair.p < 1e-4 and pair.difference < 0 for pair in pairs)
    assert comparison.pairs(found[:3]) == []


def test_the_page_and_the_table_of_five_seeds(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path, "good", 5, margin=3), *seeds(tmp_path, "bad", 5, margin=1)]
    assert report_several.write(runs) == tmp_path / "comparison.html"
    html = (tmp_path / "comparison.html").read_text()
    text = Page(html).text
    (good, bad) = comparison.groups(comparison.read_all(runs))
    assert f"{good.spread('test accuracy').mean:.2%} ± " in text
    assert text.index("good classifies") < text.index("Pairs of models")
    assert Page(html).rows("bad", "5", str(bad.spread("test accuracy")))
    assert text.count("< 0.0001") == 5
    assert not re.search(r"https?:|//\w|@import|url\(", html)
    assert ("script", {}) in Page(html).elements
    summary = report_several.summary(runs)
    assert "good, n = 5 (seeds 0, 1, 2, 3, 4)" in summary
    assert f"test accuracy               {good.spread('test accuracy')}" in summary
    assert "bad-seed4 against good-seed4: -" in summary


def test_runs_with_and_without_validation_images(tmp_path: Path) -> None:
    runs = seeds(tmp_path, "held", 2)
    runs += [make_run(tmp_path / "all", search=False, name="all", data={"split": "none"})]
    page = Page(report_several.write(runs).read_text())
    test, f1 = (comparison.groups(comparison.read_all(runs))[1].spread(name) for name in ("test accuracy", "macro F1"))
    assert page.rows("all", "1", str(test), "–", str(f1))
    assert page.rows("all", "all", "7", str(test), str(f1))
    assert "no such curves: all." in page.text
    assert "Validation loss" in page.text
    assert "validation accuracy         –" in report_several.summary(runs)


def test_the_page_links_to_those_of_its_runs(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path / "results", "plain", 2), make_run(tmp_path / "results" / "50% #1", search=False, seed=2)]
    for run in runs[1:]:
        run.report.touch()
    path = report_several.write(runs, tmp_path / "elsewhere" / "page.html")
    links = [attrs["href"] for tag, attrs in Page(path.read_text()).elements if tag == "a"]
    assert "../results/plain-seed1/report.html" in links
    assert "../results/50%25%20%231/report.html" in links
    assert (path.parent / "../results/plain-seed1/report.html").exists()
    assert not any("plain-seed0" in str(link) for link in links)


def test_runs_that_cannot_be_compared_leave_the_earlier_page(tmp_path: Path) -> None:
    runs = seeds(tmp_path, "plain", 2)
    page = tmp_path / "comparison.html"
    page.write_text("earlier")
    with pytest.raises(BadInput, match="plain-seed0 is named twice"):
        report_several.write([runs[0], RunDir(tmp_path / "x" / ".." / "plain-seed0")])
    copy = RunDir(shutil.copytree(runs[0].path, tmp_path / "copy"))
    with pytest.raises(BadInput, match="copy holds the same model as .*plain-seed0, so it is no sample of its own"):
        report_several.write([*runs, copy])
    metrics = files.read_json(runs[1].metrics)
    metrics["data"]["sha256"]["t10k-labels-idx1-ubyte"] = "00"
    files.write_json(runs[1].metrics, metrics)
    with pytest.raises(BadInput, match="plain-seed1 and .*plain-seed0 were trained or judged on different data"):
        report_several.write(runs)
    assert page.read_text() == "earlier"
