"""The evidence of a recipe: trainings shared by processes and once each, the test set after them, the table."""

import dataclasses
import functools
import json
import shutil
import signal
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Command, Start, end
from images import images
from runs import Page, make_run
from test_signals import signal_at, wait_for

from fmnist import files
from fmnist.data import dataset
from fmnist.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, BadInput, Interrupted
from fmnist.evaluation.job import evaluate
from fmnist.network.inference import load, logits
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED, DataConfig
from fmnist.report import one as report
from fmnist.report import several as report_several
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.study import baselines as references
from fmnist.study import job as evidence
from fmnist.study import table as evidence_table
from fmnist.study.table import Judged, Row

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# A training of seconds, with the views of test-time averaging.
OWN = TINY.partition("[search]")[0].replace("epochs = 3", "epochs = 12\naugment = { shift = 1, flip = true }")
EVIDENCE = ("evidence", "--recipe", "own.toml", "--seeds", "5", "--reference-seeds", "0")


def table(text: str) -> dict[str, list[str]]:
    """The cells of each row of a Markdown table, by the first one."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows[2:]}


def said(path: Path, split: str = "test") -> float:
    return float(json.loads(path.read_text())[split]["accuracy"])


def spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


@pytest.mark.faults
def test_processes_share_the_trainings_and_go_on_with_one_that_was_killed(
    tmp_path: Path, start: Start, train_files: Path
) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    end(
        start(tmp_path, *EVIDENCE, prepare=functools.partial(signal_at, "epoch  3/12", signal.SIGKILL)), -signal.SIGKILL
    )
    stopped = start(tmp_path, *EVIDENCE)
    wait_for(stopped, "going on after epoch")
    stopped.send_signal(signal.SIGTERM)
    end(stopped, EXIT_INTERRUPTED)

    # The trainings do without the test set; whoever comes to the end of them asks for it.
    both = [start(tmp_path, *EVIDENCE, FMNIST_DATA=str(train_files)) for _ in range(2)]
    ended = list(map(end, both))
    logs = "".join(one.stderr for one in ended)
    assert {EXIT_BAD_INPUT} <= {one.returncode for one in ended} <= {0, EXIT_BAD_INPUT}, logs
    assert "no t10k-images-idx3-ubyte.gz" in logs
    runs = [tmp_path / "results" / f"own-seed{seed}" for seed in range(5)]
    for seed, run in enumerate(runs):
        assert len(json.loads((run / "history.json").read_text())["history"]["loss"]) == 12
        assert logs.count(f"train own (seed {seed})") == 1
        assert not (run / "metrics.json").exists()
    assert "going on after epoch" in logs

    judged = end(start(tmp_path, *EVIDENCE), 0)
    assert "epoch" not in judged.stderr
    rows = table(judged.stdout)
    assert list(rows) == [
        "own",
        "own, test-time averaging",
        "own, ensemble of 5",
        "own, ensemble of 5, test-time averaging",
    ]
    results = tmp_path / "results"
    for name in ("own, ensemble of 5", "own, ensemble of 5, test-time averaging"):
        file = f"own-seeds0-4-ensemble{'-tta' * ('averaging' in name)}.json"
        assert rows[name][:2] == ["1", f"{said(results / file):.4f}"]
    assert rows["own"][:3] == [
        "5",
        spread([said(run / "metrics.json") for run in runs]),
        spread([said(run / "metrics.json", "validation") for run in runs]),
    ]
    assert rows["own, test-time averaging"][1] == spread([said(run / "metrics-tta.json") for run in runs])
    assert (results / "own-evidence.md").read_text() == judged.stdout
    assert "the table is in results/own-evidence.md, with all samples in results/own-evidence.json" in judged.stderr
    assert "evidence: evaluation 12 of 12, own, ensemble of 5, test-time averaging" in judged.stderr
    assert "evidence: training 5 of 5, own-seed4" in logs


@pytest.fixture
def five(run: Path, tmp_path: Path) -> list[RunDir]:
    """Five seeds of `tiny`, of which none was judged: five copies of one run."""
    runs = [RunDir(tmp_path / run.with_name(f"tiny-seed{seed}")) for seed in range(5)]
    for path in (runs[0].metrics, runs[0].predictions):
        path.unlink()
    for seed, copy in enumerate(runs[1:], 1):
        shutil.copytree(runs[0].path, copy.path)
        files.write_json(copy.config, files.read_json(copy.config) | {"seed": seed})
    return runs


@pytest.mark.faults
def test_nothing_is_judged_while_a_training_is_in_other_hands(five: list[RunDir], fmnist: Command) -> None:
    five[3].model.unlink()
    tiny = ("evidence", "--recipe", "tiny.toml", "--seeds", "5", "--reference-seeds", "0")
    with five[3].lock("train"):
        ended = fmnist(*tiny)
    assert ended.stdout == ""
    assert "other processes are training tiny-seed3;" in ended.stderr
    assert not any(run.metrics.exists() for run in five)

    ended = fmnist(*tiny)
    assert "train tiny (seed 3)" in ended.stderr
    results = five[0].path.parent
    rows = table(ended.stdout)
    assert rows["tiny"][1] == spread([said(run.metrics) for run in five])
    assert rows["tiny"][5].endswith("of search")
    assert rows["tiny, ensemble of 5"][:2] == ["1", f"{said(results / 'tiny-seeds0-4-ensemble.json'):.4f}"]
    # It was not trained on such views.
    assert not any("averaging" in row for row in rows)
    assert not list(results.rglob("*tta*"))
    told = json.loads((results / "tiny-evidence.json").read_text())["rows"]
    assert [row["what"] for row in told] == list(rows)
    assert told[0]["test_accuracy"]["values"] == [said(run.metrics) for run in five]
    assert told[1]["runs"] == [[run.path.name for run in five]]


@pytest.mark.faults
def test_without_validation_images_all_else_is_said(tmp_path: Path, fmnist: Command) -> None:
    own = OWN.replace("12", "1").replace("[data]", '[data]\nsplit = "none"')
    (tmp_path / "own.toml").write_text(own)
    ended = fmnist(*EVIDENCE)
    assert "no images held back for validation, epoch 1 of 1;" in ended.stderr
    results = tmp_path / "results"
    rows = table(ended.stdout)
    assert {cells[2] for cells in rows.values()} == {"–"}
    told = json.loads((results / "own-evidence.json").read_text())["rows"]
    assert [row["validation_accuracy"]["mean"] for row in told] == [None] * 4
    runs = [RunDir(results / f"own-seed{seed}") for seed in range(5)]
    assert rows["own"][1] == spread([said(run.metrics) for run in runs])
    assert not [name for name in files.read_json(runs[0].history)["history"] if name.startswith("val_")]
    assert "validation accuracy" not in report.summary(runs[0])
    page = Page(report.write(runs[0]).read_text()).text
    assert "3,000none held back for validation" in page.replace("\n", "")
    assert "Training accuracy" in Page(report_several.write(runs).read_text()).text


@pytest.mark.parametrize("name", references.NAMES)
def test_a_references_model_is_what_scikit_learn_fitted(name: str, tmp_path: Path, data_dir: Path) -> None:
    recipe = config.replace(references.recipe(name, DataConfig(train_limit=2000)), {"training.epochs": 20})
    run = RunDir(tmp_path / name)
    references.train(run, recipe, 0, data_dir, Stop())
    loaded = dataset.load_train(data_dir, recipe.data)
    shown, labels = loaded.validation.images, loaded.validation.labels
    estimator = references.fit(recipe, 0, loaded.train, Stop())
    classes = estimator.predict(shown.reshape(-1, 784) / np.float32(255))
    np.testing.assert_array_equal(logits(load(run.model), shown).argmax(axis=1), classes)

    metrics = evaluate(run, data_dir)
    assert metrics["validation"]["accuracy"] == pytest.approx(np.mean(classes == labels))
    assert files.read_json(run.history)["history"]["val_accuracy"] == [metrics["validation"]["accuracy"]]
    assert metrics["test"]["accuracy"] > 0.75
    assert report.write(run).exists()
    written = run.model.stat().st_mtime_ns
    references.train(run, recipe, 0, data_dir, Stop())
    assert run.model.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", references.NAMES)
def test_a_reference_takes_the_largest_seed(name: str) -> None:
    short = config.replace(references.recipe(name, DataConfig()), {"training.epochs": 300})
    assert references.fit(short, MOST_SEED, images(200), Stop()).n_iter_


def test_a_reference_can_be_stopped(tmp_path: Path, data_dir: Path) -> None:
    stop = Stop()
    stop.request()
    run = RunDir(tmp_path / "run")
    with pytest.raises(Interrupted):
        references.train(run, references.recipe("sklearn-mlp", DataConfig(train_limit=1000)), 0, data_dir, stop)
    assert not run.trained


def test_the_references_are_trained_on_the_recipes_images(tmp_path: Path) -> None:
    recipe = config.load("baseline-mlp")
    planned = evidence.plan(recipe, 5, 3, tmp_path)
    assert [training.run.path.name for training in planned.recipe] == [f"baseline-mlp-seed{seed}" for seed in range(5)]
    counts = Counter(training.recipe.name for training in planned.references)
    assert counts == {"logistic-regression": 1, "sklearn-mlp": 3, "regularized-mlp": 3, "tuned-mlp": 3}
    assert planned.references[0].recipe.data == recipe.data
    assert [training.run.path.name for training in planned.references[::3]] == [
        "baseline-mlp-logistic-regression-seed0",
        "baseline-mlp-sklearn-mlp-seed2",
        "regularized-mlp-seed2",
        "tuned-mlp-seed2",
    ]
    assert not evidence.plan(recipe, 5, 0, tmp_path).references
    with pytest.raises(BadInput, match="--seeds 4: too few for the ensemble; choose 5 or more"):
        evidence.plan(recipe, 4, 0, tmp_path)


@pytest.mark.parametrize(
    ("revisions", "fashion", "expected"),
    [
        (["ab", "ab", "ab"], True, ["All models were trained at commit ab."]),
        (
            ["ab", "ab", "cd+changes"],
            True,
            [
                "plain was trained at commit ab.",
                "wide was trained at commit cd+changes.",
                "WARNING: the code was not that of the commit, where it says +changes.",
            ],
        ),
        (
            ["ab", "cd", None],
            False,
            [
                "plain was trained at commits ab, cd.",
                "wide was trained at commit (not recorded).",
                "WARNING: plain is of several commits.",
                "WARNING: of some runs the commit is not known.",
                "WARNING: NOT FASHION-MNIST: these are the figures of another data set.",
            ],
        ),
    ],
)
def test_the_commit_of_the_trainings(
    tmp_path: Path, revisions: list[str | None], fashion: bool, expected: list[str]
) -> None:
    names = ["plain", "plain", "wide"]
    runs = [
        make_run(tmp_path / str(seed), search=False, fashion=fashion, seed=seed, name=name)
        for seed, name in enumerate(names)
    ]
    for run, revision in zip(runs, revisions, strict=True):
        recorded = files.read_json(run.config)
        recorded["jobs"]["train"]["revision"] = revision
        files.write_json(run.config, recorded)
    rows = [Row(run.path.name, [Judged(files.read_json(run.metrics), [run])]) for run in runs]
    assert evidence_table.provenance(rows) == expected
    assert all(line in evidence_table.markdown(rows) for line in expected)


def test_a_model_of_a_search_with_fewer_trials_is_not_the_recipes(run: Path, tmp_path: Path) -> None:
    of = config.load(str(tmp_path / "tiny.toml"))
    training = evidence.Training(of, 0, RunDir(tmp_path / run))
    assert evidence._is_trained(training)
    more = config.replace(of, {"search.trials": 3})
    assert not evidence._is_trained(dataclasses.replace(training, recipe=more))
    fewer = config.replace(of, {"search.trials": 1})
    with pytest.raises(BadInput, match="has 2 trials, the recipe 1"):
        evidence.train_one(
            [dataclasses.replace(training, recipe=fewer)], None, lambda: pytest.fail("it trains"), Stop()
        )
    assert training.run.best.exists()
    best = json.loads(training.run.best.read_text())
    best["values"]["training.learning_rate"] *= 2
    training.run.best.write_text(json.dumps(best))
    assert not evidence._is_trained(training)


def test_a_recipe_cannot_have_the_name_of_a_reference(tmp_path: Path) -> None:
    path = tmp_path / f"{references.NAMES[1]}.toml"
    path.write_text("[model]\nhidden = [8]\n")
    with pytest.raises(BadInput, match="another name"):
        evidence.plan(config.load(str(path)), 5, 0, tmp_path)


def test_the_commits_of_all_that_made_a_model_count(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", search=True)
    recorded = files.read_json(run.config)
    recorded["jobs"]["tune"] = {**recorded["jobs"]["train"], "revision": "a"}
    recorded["jobs"]["train"] |= {"revision": "c", "went_on_from": [{"revision": "b"}]}
    files.write_json(run.config, recorded)
    rows = [Row("run", [Judged(files.read_json(run.metrics), [run])])]
    assert evidence_table.provenance(rows)[0].endswith("was trained at commits a, b, c.")
