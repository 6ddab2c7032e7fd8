"""`fmnist tune --workers 2` on the real data, as a person runs it."""

import os
import re
import signal
from pathlib import Path

import pytest
from conftest import Command, Process, Start, end
from searching import until

from fmnist.errors import EXIT_INTERRUPTED
from fmnist.files import read_json
from fmnist.run.folder import RunDir, read_trials
from fmnist.search.record import Reader

TUNE = ("tune", "--recipe", "tiny.toml", "--trials", "4", "--devices", "cpu", "--set", "search.epochs=40")


def members(process: Process) -> list[int]:
    """The processes that it has started, each in a session of its own, and that still live."""
    children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    return [pid for pid in children if os.getsid(pid) == pid]


@pytest.mark.faults
def test_two_workers_find_what_one_finds_also_after_an_interruption(tiny: Path, start: Start, fmnist: Command) -> None:
    two, one = RunDir(tiny / "two"), RunDir(tiny / "one")
    launcher = start(tiny, *TUNE, "--workers", "2", "--run", two)
    # Both have a trial, and one is through.
    until(lambda: {"worker-0", "worker-1"} <= {row["worker"] for row in read_trials(two.trials)}, 120)
    until(lambda: "COMPLETED" in {record.status for record in Reader(two.search).read().values()}, 120)
    started = members(launcher)
    assert len(started) == 3
    launcher.send_signal(signal.SIGINT)
    end(launcher, EXIT_INTERRUPTED, seconds=60)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert re.match(r"interrupted: \d of 4 trials done, 0 running", fmnist("tune", "--status", two).stdout)
    fmnist(*TUNE, "--workers", "2", "--run", two)
    assert {row["worker"] for row in read_trials(two.trials)} == {"worker-0", "worker-1"}
    fmnist(*TUNE, "--workers", "1", "--run", one)
    assert read_json(two.best) == read_json(one.best)
    assert [row["score"] for row in read_trials(two.trials)] == [row["score"] for row in read_trials(one.trials)]
    assert "4 of 4 trials done, 0 running, 0 failed" in fmnist("tune", "--status", two).stdout


def test_a_finished_search_needs_no_gpu(tiny: Path, fmnist: Command) -> None:
    fmnist("tune", "--recipe", "tiny.toml")
    for workers in ("1", "2"):
        assert (
            "nothing to do" in fmnist("tune", "--recipe", "tiny.toml", "--workers", workers, "--devices", "gpu").stderr
        )


@pytest.mark.parametrize("bad", [("--data", "nowhere"), ("--devices", "gpu")])
def test_bad_input_for_several_workers_leaves_no_folder(tiny: Path, fmnist: Command, bad: tuple[str, str]) -> None:
    ended = fmnist(*TUNE, "--workers", "2", *bad, CUDA_VISIBLE_DEVICES="-1", code=64)
    (line,) = ended.stderr.splitlines()
    assert bad[1] in line
    assert not (tiny / "results").exists()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.faults)])
def test_a_search_whose_every_trial_fails_ends_with_one_line(tiny: Path, fmnist: Command, workers: str) -> None:
    hopeless = ["--set", "training.optimizer=sgd", "--set", "search.epochs=1", "--set", "search.trials=1"]
    hopeless += ["--set", 'search.space={"training.learning_rate"={min=1e30,max=1e35}}']
    ended = fmnist("tune", "--recipe", "tiny.toml", "--workers", workers, *hopeless, code=1)
    assert ended.stderr.splitlines()[-1].startswith("fmnist: all 1 trials of the search failed; the last one: ")
    assert "Traceback" not in ended.stderr
    way_on = "give `fmnist tune` more --trials, or choose another --run"
    assert way_on in ended.stderr
    run = tiny / "results" / "tiny-seed0"
    assert way_on in fmnist("report", run, code=64).stderr
    assert not list((run / "checkpoint").glob("trial_*"))
