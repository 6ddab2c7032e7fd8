"""`fmnist tune --workers 2` on the real data, as a person runs it."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from conftest import TINY, Command, Process, Start
from searching import until

from fmnist.errors import EXIT_INTERRUPTED

TUNE = ("tune", "--recipe", "tiny.toml", "--trials", "4", "--devices", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


def trials(run: Path) -> list[dict[str, str]]:
    if not (run / "trials.csv").exists():
        return []
    with (run / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def members(process: Process) -> list[int]:
    """The processes that it has started, each in a session of its own, and that still live."""
    children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    return [pid for pid in children if os.getsid(pid) == pid]


@pytest.mark.faults
def test_two_workers_find_what_one_finds_also_after_an_interruption(
    folder: Path, start: Start, fmnist: Command
) -> None:
    two, one = folder / "two", folder / "one"
    with start(folder, *TUNE, "--workers", "2", "--run", two) as launcher:
        # Both have a trial, and one is through.
        until(lambda: {"worker-0", "worker-1"} <= {row["worker"] for row in trials(two)}, 120)
        until(lambda: "COMPLETED" in {row["status"] for row in trials(two)}, 120)
        started = members(launcher)
        assert len(started) == 3
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == EXIT_INTERRUPTED, stderr
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    status = fmnist("tune", "--status", two)
    assert status.returncode == 0
    assert "of 4 trials done" in status.stdout
    assert fmnist(*TUNE, "--workers", "2", "--run", two).returncode == 0
    assert {row["worker"] for row in trials(two)} == {"worker-0", "worker-1"}
    assert fmnist(*TUNE, "--workers", "1", "--run", one).returncode == 0
    assert json.loads((two / "best.json").read_text()) == json.loads((one / "best.json").read_text())
    assert [row["score"] for row in trials(two)] == [row["score"] for row in trials(one)]
    assert "4 of 4 trials done, 0 running, 0 failed" in fmnist("tune", "--status", two).stdout


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.faults)])
def test_a_search_whose_every_trial_fails_ends_with_one_line(folder: Path, fmnist: Command, workers: str) -> None:
    hopeless = ["--set", "training.optimizer=sgd", "--set", "search.epochs=1", "--set", "search.trials=1"]
    hopeless += ["--set", 'search.space={"training.learning_rate"={min=1e30,max=1e35}}']
    ended = fmnist("tune", "--recipe", "tiny.toml", "--workers", workers, *hopeless)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("fmnist: all 1 trials of the search failed; the last one: ")
    assert "Traceback" not in ended.stderr


def test_there_is_no_status_without_a_search(folder: Path, fmnist: Command) -> None:
    assert fmnist("tune", "--status", folder / "nothing").returncode == 64
