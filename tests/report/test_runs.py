"""What `fmnist runs` and `report` say of a folder of runs, finished or not."""

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from runs import make_run
from searching import Runner, recipe, search

from fmnist.cli.app import app
from fmnist.errors import BadInput
from fmnist.evaluation.job import evaluate
from fmnist.recipe import config
from fmnist.report import figures, runs, several
from fmnist.report.results import read
from fmnist.run.folder import RunDir


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in each state, and what is none."""
    folder = tmp_path_factory.mktemp("results")
    make_run(folder / "tuned-mlp-seed0", seed=0)
    make_run(folder / "better", seed=1, search=False, margin=3)
    trained = make_run(folder / "trained", seed=2, search=False)
    trained.model.touch()
    trained.metrics.unlink()
    searched = RunDir(folder / "searched")
    searched.claim(recipe(trials=5), 0)
    search(searched.path, recipe(trials=5), Runner())
    cut = RunDir(folder / "cut")
    cut.claim(recipe(trials=9), 0)
    search(cut.path, recipe(trials=5), Runner())
    RunDir(folder / "begun").claim(config.load("smoke"), 3)
    make_run(folder / "damaged", seed=0).metrics.write_text("{")
    make_run(folder / "headless", search=False).config.unlink()
    (folder / "comparison.html").touch()
    (folder / "empty").mkdir()
    return folder


def listed(folder: Path, capsys: pytest.CaptureFixture[str], sort: str = "run") -> list[dict[str, Any]]:
    runs.show(folder, sort, as_json=True)
    return list(json.loads(capsys.readouterr().out))


def test_each_run_has_its_state_and_figures(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["run"]: row for row in listed(results, capsys)}
    assert {name: row["state"] for name, row in found.items()} == {
        "begun": "interrupted",
        "better": "evaluated",
        "cut": "interrupted",
        "damaged": "damaged",
        "headless": "damaged",
        "searched": "searched",
        "trained": "trained",
        "tuned-mlp-seed0": "evaluated",
    }
    best = json.loads((results / "searched" / "best.json").read_text())
    assert found["searched"]["validation"] == best["score"]
    assert found["searched"]["test"] is None
    assert found["searched"]["trials"] == [5, 5]
    assert found["cut"]["trials"] == [5, 9]
    assert found["trained"]["validation"] == 0.82
    assert found["trained"]["trials"] is None
    assert (found["begun"]["recipe"], found["begun"]["seed"]) == ("smoke", 3)
    assert found["tuned-mlp-seed0"]["validation"] == 0.9034
    metrics = json.loads((results / "tuned-mlp-seed0" / "metrics.json").read_text())
    assert found["tuned-mlp-seed0"]["test"] == metrics["test"]["accuracy"]
    files = (path for path in (results / "better").rglob("*") if path.is_file())
    assert found["better"]["size"] == sum(path.stat().st_size for path in files)
    assert (
        json.loads((results / "better" / "config.json").read_text())["jobs"]["train"]["started"]
        == (found["better"]["when"])
    )


def test_of_a_damaged_run_what_is_whole_is_told(
    results: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = results / "searched" / "trials.csv"
    whole = table.read_bytes()
    try:
        table.write_text("rubbish")
        found = {row["run"]: row for row in listed(results, capsys)}
    finally:
        table.write_bytes(whole)
    assert [found["searched"][name] for name in ("state", "recipe", "seed", "trials")] == ["damaged", "test", 0, None]
    assert [found["damaged"][name] for name in ("state", "recipe", "seed")] == ["damaged", "tuned-mlp", 0]
    assert [found["headless"][name] for name in ("state", "recipe", "seed")] == ["damaged", "", None]
    assert any("trials.csv is damaged (it has no trial, status, score)" in line for line in caplog.messages)
    assert any("headless/config.json is missing, though other files of a run" in line for line in caplog.messages)
    assert [row["run"] for row in listed(results, capsys, "seed")][-1] == "headless"


@pytest.mark.parametrize(("job", "state"), [("tune", "searching"), ("train", "training")])
def test_a_run_that_a_process_is_at_work_on(
    results: Path, capsys: pytest.CaptureFixture[str], job: str, state: str
) -> None:
    with RunDir(results / "cut").lock(job):
        assert [row["state"] for row in listed(results, capsys) if row["run"] == "cut"] == [state]
    assert [row["state"] for row in listed(results, capsys) if row["run"] == "cut"] == ["interrupted"]


def test_to_look_keeps_no_job_from_its_folder(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(results / "cut")
    with run.lock("tune"):
        pass
    with (run.checkpoint / "tune.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda _: looking.close())
        with run.lock("tune"):
            assert looking.closed


def test_runs_are_sorted_by_a_column(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = [row["run"] for row in listed(results, capsys, "test")]
    assert best[:2] == ["better", "tuned-mlp-seed0"]
    sizes = [row["size"] for row in listed(results, capsys, "size")]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["recipe"] for row in listed(results, capsys, "recipe")][-1] == "tuned-mlp"
    valid = [row["validation"] for row in listed(results, capsys, "val") if row["validation"] is not None]
    assert valid == sorted(valid, reverse=True)
    assert listed(results, capsys, "val") == listed(results, capsys, "validation")
    with pytest.raises(BadInput, match="--sort sise: choose one of run, .*; did you mean 'size'"):
        runs.show(results, "sise")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, without colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("terminal")
def test_the_table_fits_a_terminal(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.show(results, "run")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["run", "recipe", "seed", "state", "trials", "val", "test", "when", "size"]
    assert lines[-1].split()[:4] == ["tuned-mlp-seed0", "tuned-mlp", "0", "evaluated"]


@pytest.mark.usefixtures("terminal")
def test_a_long_name_keeps_the_figures_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for end in ("first", "second"):
        make_run(tmp_path / f"{'long-' * 30}{end}", search=False)
    runs.show(tmp_path, "run")
    head, one, other, note = capsys.readouterr().out.splitlines()
    assert max(map(len, (head, one, other))) <= 80
    assert head.split() == ["run", "state", "val", "test"]
    assert one.split()[0].startswith("long-long-")
    assert "..." in one
    assert (one.split()[0][-6:], other.split()[0][-6:]) == ("-first", "second")
    assert float(one.split()[-1]) == float(f"{listed(tmp_path, capsys)[0]['test']:.4f}")
    assert note == "no room for size, when, seed, recipe, trials, whole names; --json has all"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_folders_that_nobody_else_may_look_into_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_run(folder / "mine", search=False)
        (folder / "lost+found").mkdir(mode=0o700)
        # Its imports are root's, where Python lies in root's home.
        listed(folder, capsys)
        os.seteuid(12345)
        try:
            found = listed(folder, capsys)
        finally:
            os.seteuid(0)
    assert [run["run"] for run in found] == ["mine"]


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.show(tmp_path, "run")
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
    with pytest.raises(BadInput, match="nowhere is no folder of runs: No such file"):
        runs.show(tmp_path / "nowhere", "run")


def test_a_report_passes_over_what_is_not_evaluated(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = [RunDir(path) for path in sorted(results.iterdir())]
    assert [run.name for run in runs.finished(everything)] == ["better", "tuned-mlp-seed0"]
    damaged, line = caplog.messages
    assert damaged.startswith(f"passed over: {results / 'damaged' / 'metrics.json'} is damaged")
    assert line.startswith("passed over, since it is no evaluated run: ")
    for name in ("begun", "comparison.html", "cut", "empty", "searched", "trained"):
        assert f"{results / name}" in line
    with pytest.raises(BadInput, match="none of these 2 is an evaluated run"):
        runs.finished([RunDir(results / "cut"), RunDir(results / "trained")])
    with pytest.raises(BadInput, match="nowhere holds no run"):
        runs.finished([RunDir(results / "better"), RunDir(results / "nowhere")])


@pytest.mark.parametrize(("name", "job"), [("begun", "tune"), ("cut", "tune"), ("searched", "train")])
def test_what_comes_next_is_named(results: Path, name: str, job: str) -> None:
    run = RunDir(results / name)
    for reader in (read, lambda run: evaluate(run, None)):
        with pytest.raises(BadInput, match=f"is missing; run `fmnist {job}` first, with the same options as before$"):
            reader(run)
    with run.lock(job), pytest.raises(BadInput, match=f"is missing; wait for `fmnist {job}`, which is at work$"):
        read(run)


def test_the_form_of_a_report_is_that_of_the_runs_asked_for(
    results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def report(*names: str) -> dict[str, Any]:
        words = [*(str(results / name) for name in names), "--json", f"--output={tmp_path / 'page.html'}"]
        app(["report", *words], standalone_mode=False)
        return dict(json.loads(capsys.readouterr().out))

    assert report("better")["run"] == str(results / "better")
    both = report("better", "cut")
    assert both.keys() == report("better", "tuned-mlp-seed0").keys()
    assert [run["run"] for run in both["runs"]] == [str(results / "better")]
    assert several.summary([RunDir(results / "better")]).startswith("tuned-mlp, n = 1 (seed 1)")


def test_the_figures_are_those_of_the_report(results: Path) -> None:
    one, other = RunDir(results / "tuned-mlp-seed0"), RunDir(results / "better")
    told = figures.of_run(one)
    metrics = json.loads(one.metrics.read_text())
    assert told["figures"]["test accuracy"]["value"] == metrics["test"]["accuracy"]
    assert told["search"]["values"] == {"model.hidden": [128, 64], "training.learning_rate": 0.003}
    both = figures.of_runs([one, other])
    assert both["runs"][0] == told
    assert [group["seeds"] for group in both["recipes"]] == [[0], [1]]
    (pair,) = both["pairs"]
    assert pair["difference"] == pytest.approx(
        both["runs"][1]["figures"]["test accuracy"]["value"] - told["figures"]["test accuracy"]["value"]
    )
    json.dumps(both, allow_nan=False)
