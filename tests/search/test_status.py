"""How far a search is, as a person at a terminal sees it."""

import json
import re
from pathlib import Path

import pytest
from conftest import Command, Start
from searching import SPACE, Runner, recipe, search
from test_progress import TERMINAL, on_terminal

from fmnist.run.folder import RunDir
from fmnist.search import status
from fmnist.search.chief import Chief
from fmnist.search.journal import NAME
from fmnist.search.record import Reader


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.faults)])
def test_a_terminal_shows_the_table_below_the_log(tiny: Path, train_files: Path, start: Start, workers: str) -> None:
    tune = ("tune", "--recipe", "tiny.toml", "--workers", workers)
    options = {**TERMINAL, "FMNIST_DATA": str(train_files)}
    shown = on_terminal(lambda stderr: start(tiny, *tune, stderr=stderr, **options))
    assert "searching: 0 of 2 trials done" in shown
    assert "finished: 2 of 2 trials done, 0 running, 0 failed" in shown
    assert "best val_accuracy" in shown
    assert "trial 1, epoch 2/2" in shown
    assert "interrupted" not in shown
    assert "trial 1 COMPLETED on worker-" in shown
    assert re.search(r"  hidden=\d+(-\d+)? learning_rate=0\.\d+\r?\n", shown)
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80


def test_a_damaged_table_is_one_line(run: Path, tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / run / "trials.csv").write_text("trial,status,score,seconds\n0,COMPLETED,0.9,x\n")
    status = fmnist("tune", "--status", run, code=64)
    assert status.stderr.startswith(f"fmnist: {run}/trials.csv is damaged")
    assert status.stderr.count("\n") == 1


@pytest.fixture
def begun(tmp_path: Path) -> RunDir:
    """The folder of a search that has not begun."""
    found = RunDir(tmp_path / "run")
    found.claim(recipe(trials=3), 0)
    return found


def test_a_search_is_shown_as_it_is_now(begun: RunDir) -> None:
    """Not as trials.csv has it, which is written once a second at most."""
    with begun.lock("tune"):
        chief = Chief(begun, recipe(trials=3), 0)
        for accuracy in (0.7, 0.8):
            trial = chief.create_trial("w")
            assert status.read(begun).count("running") == 1
            chief.update_trial("w", trial.trial_id, {"val_accuracy": accuracy, "seconds": 1.5}, 0)
            now = status.read(begun).trials[0]
            assert (now.id, now.status, now.epochs, now.score) == (trial.trial_id, "running", 1, accuracy)
            assert (now.of, now.seconds, now.worker) == (2, 1.5, "w")
            chief.end_trial("w", trial.trial_id, "COMPLETED")
        told = status.read(begun)
    assert told.state == "searching"
    assert told.count("running", "waiting") == 0
    assert [(trial.status, trial.score) for trial in told.trials] == [("completed", 0.8), ("completed", 0.7)]
    assert told.best is told.trials[0]


def test_a_running_search_is_told_from_one_that_was_interrupted(begun: RunDir) -> None:
    with begun.lock("tune"):
        chief = Chief(begun, recipe(trials=3), 0)
        chief.create_trial("w")
        assert (status.read(begun).state, status.read(begun).count("running")) == ("searching", 1)
    told = status.read(begun)
    assert (told.state, told.count("running"), told.count("waiting")) == ("interrupted", 0, 1)
    search(begun.path, recipe(trials=3), Runner())
    assert status.read(begun).state == "finished"


def test_workers_that_are_gone_are_not_counted(begun: RunDir) -> None:
    """Those of an earlier chief until they call again, and those whose lease has lapsed."""
    trial = Chief(begun, recipe(trials=3), 0).create_trial("w")
    with begun.lock("tune"):
        chief = Chief(begun, recipe(trials=3), 0, grace=60)
        assert status.read(begun).count("running") == 0
        chief.update_trial("w", trial.trial_id, {"val_accuracy": 0.7, "seconds": 1.0}, 0)
        assert status.read(begun).count("running") == 1
        chief = Chief(begun, recipe(trials=3), 0, grace=0)
        assert chief.create_trial("gone", lease=-1.0).trial_id == trial.trial_id
        # As the chief's process does; nobody else calls.
        chief.wait_finished(0)
        told = status.read(begun)
        assert (told.count("running"), told.count("waiting")) == (0, 1)


def test_a_reader_of_the_journal_follows_it(begun: RunDir) -> None:
    """A chief that finds it damaged writes it anew."""
    reader = Reader(begun.search)
    assert not reader.read()
    chief = Chief(begun, recipe(trials=3), 0)
    trial = chief.create_trial("w").trial_id
    assert reader.read()[trial].reports == {}
    for epoch in range(2):
        chief.update_trial("w", trial, {"val_accuracy": 0.5, "seconds": 1.0}, epoch)
        assert list(reader.read()[trial].reports) == list(range(epoch + 1))
    file = begun.search / NAME
    with file.open("ab") as torn:
        torn.write(b"a line that is being writ")
    assert list(reader.read()[trial].reports) == [0, 1]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"x" + lines[1], *lines[2:]]))
    chief = Chief(begun, recipe(trials=3), 0)
    assert not reader.read()[trial].at_work
    assert chief.create_trial("v").trial_id == trial
    assert reader.read()[trial].worker == "v"
    assert reader.read() == Reader(begun.search).read()


def test_json_has_what_the_table_has(begun: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    search(begun.path, recipe(trials=3), Runner())
    status.show(begun, as_json=True)
    told = json.loads(capsys.readouterr().out)
    best = json.loads(begun.best.read_text())
    assert (told["state"], told["wanted"], told["completed"], told["running"]) == ("finished", 3, 3, 0)
    assert told["best"] == told["trials"][0]["id"] == best["trial"]
    first = told["trials"][0]
    assert first["score"] == best["score"]
    assert first["values"]["training.learning_rate"] == best["values"]["training.learning_rate"]
    assert first["values"]["model.units_1"] == best["values"]["model.hidden"][0]


MANY = {
    **SPACE,
    "model.activation": {"values": ["relu", "tanh"]},
    "model.l2": {"min": 1e-6, "max": 1e-2, "sampling": "log"},
    "training.batch_size": {"values": [64]},
    "training.weight_decay": {"min": 1e-4, "max": 1e-1, "sampling": "log"},
    "training.ema_momentum": {"min": 0.9, "max": 0.99},
}


@pytest.mark.parametrize(("space", "left_out"), [(SPACE, ""), (MANY, "weight_decay, ema_momentum")])
def test_the_table_fits_a_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    space: dict[str, object],
    left_out: str,
) -> None:
    of, run = recipe(space=space, trials=30), RunDir(tmp_path)
    run.claim(of, 0)
    search(tmp_path, of, Runner())
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    status.show(run)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    heads = " ".join(lines[2:4]).split()
    assert [head for head in heads if head in ("hidden", "optimizer", "seconds")] == ["hidden", "optimizer", "seconds"]
    # What is the same in all trials tells nothing.
    assert "batch" not in heads
    more = int(re.match(r"in trials.csv also: (\d+) more trials", lines[-1])[1])  # type: ignore[index]
    assert more + len(lines) - 5 == 30
    assert lines[-1].endswith(left_out or "trials")
    scores = [float(line.split()[-2]) for line in lines[4:-1]]
    assert scores == sorted(scores, reverse=True)
