"""The launcher: processes that stand for the chief and its workers, real signals, and what is left of them."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from searching import log, process, until

from fmnist.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, BadInput
from fmnist.run.folder import RunDir
from fmnist.search import local, supervise
from fmnist.search.supervise import Share
from fmnist.signals import stop_on_signals

MEMBER = """
import json, os, pathlib, signal, sys, time
run, plan = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
name = os.environ["KERASTUNER_TUNER_ID"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
facts = {"cores": sorted(os.sched_getaffinity(0)), "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
facts |= {"token": os.environ["FMNIST_TOKEN"], "session": os.getsid(0)}
facts |= {"last end": os.environ.get("FMNIST_LAST_END")}
(run / "seen" / f"{name}.{os.getpid()}").write_text(json.dumps(facts))
if plan.get(name, 0) < 0:
    signal.raise_signal(-plan[name])
if name in plan:
    sys.exit(plan[name])
while not (run / "over").exists():
    time.sleep(0.01)
if name == "chief":
    (run / "search").mkdir(exist_ok=True)
    (run / "search" / "chief.json").write_text('{"address": null, "trials": 1}')
"""


def launch(path: Path, plan: dict[str, int], shares: list[Share], **kwargs: Any) -> None:
    stop = stop_on_signals()
    command = [sys.executable, "-c", MEMBER, str(path), json.dumps(plan)]
    local.run(RunDir(path), command, shares, stop, **kwargs)


@pytest.fixture
def launched(tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "run" / "seen").mkdir(parents=True)

    def start(plan: dict[str, int], shares: int | list[Share] = 2, **kwargs: Any) -> Any:
        return process(
            launch, tmp_path / "run", plan, [Share()] * shares if isinstance(shares, int) else shares, **kwargs
        )

    return start


def seen(path: Path) -> dict[str, list[int]]:
    """The process ids that each member has had."""
    found: dict[str, list[int]] = {}
    for file in (path / "run" / "seen").iterdir():
        name, _, pid = file.name.partition(".")
        found.setdefault(name, []).append(int(pid))
    return found


def alive(path: Path) -> list[int]:
    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    return [pid for pids in seen(path).values() for pid in pids if runs(pid)]


def all_there(path: Path, count: int = 3) -> Callable[[], bool]:
    return lambda: len(seen(path)) == count and all(file.stat().st_size for file in (path / "run" / "seen").iterdir())


def test_the_search_ends_with_its_chief(tmp_path: Path, launched: Callable[..., Any]) -> None:
    launcher = launched({})
    until(all_there(tmp_path))
    (tmp_path / "run" / "over").touch()
    launcher.join(20)
    assert launcher.exitcode == 0
    assert alive(tmp_path) == []


def test_each_member_has_its_share(tmp_path: Path, launched: Callable[..., Any]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    shares = [Share(frozenset(cores[:1]), ("0", "1")), Share(frozenset(cores[-1:]))]
    launcher = launched({}, shares)
    until(all_there(tmp_path))
    facts = {
        file.name.partition(".")[0]: json.loads(file.read_text()) for file in (tmp_path / "run" / "seen").iterdir()
    }
    assert (facts["worker-0"]["gpus"], facts["worker-1"]["gpus"], facts["chief"]["gpus"]) == ("0,1", "-1", "-1")
    assert (facts["worker-0"]["cores"], facts["worker-1"]["cores"]) == (cores[:1], cores[-1:])
    assert len({fact["token"] for fact in facts.values()}) == 1
    assert len(facts["chief"]["token"]) > 30
    assert len({fact["session"] for fact in facts.values()}) == 3
    launcher.terminate()
    launcher.join(20)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_with_75(tmp_path: Path, launched: Callable[..., Any], signum: signal.Signals) -> None:
    launcher = launched({})
    until(all_there(tmp_path))
    os.kill(launcher.pid, signum)
    launcher.join(20)
    assert launcher.exitcode == EXIT_INTERRUPTED
    assert alive(tmp_path) == []


def test_no_process_outlives_a_killed_launcher(tmp_path: Path, launched: Callable[..., Any]) -> None:
    launcher = launched({})
    until(all_there(tmp_path))
    launcher.kill()
    launcher.join()
    until(lambda: alive(tmp_path) == [])


def test_a_worker_that_keeps_dying_is_given_up_and_the_others_go_on(
    tmp_path: Path, launched: Callable[..., Any]
) -> None:
    launcher = launched({"worker-1": 3}, restarts=2)
    until(lambda: "worker-1 died (exit 3) once too often" in log(tmp_path / "run"))
    assert len(seen(tmp_path)["worker-1"]) == 3
    (tmp_path / "run" / "over").touch()
    launcher.join(20)
    assert launcher.exitcode == 0


def test_a_search_without_workers_ends(tmp_path: Path, launched: Callable[..., Any]) -> None:
    launcher = launched({"worker-0": 3, "worker-1": 255}, restarts=1)
    launcher.join(20)
    assert launcher.exitcode == 1
    assert alive(tmp_path) == []


@pytest.mark.parametrize("name", ["chief", "worker-0"])
def test_a_member_is_started_again_after_however_many_kills(
    tmp_path: Path, launched: Callable[..., Any], name: str
) -> None:
    launcher = launched({}, restarts=0)
    until(all_there(tmp_path))
    for kills in range(1, 4):
        (running,) = (pid for pid in seen(tmp_path)[name] if pid in alive(tmp_path))
        os.kill(running, signal.SIGKILL)
        until(lambda kills=kills: len(seen(tmp_path)[name]) == kills + 1)  # type: ignore[misc]
    (tmp_path / "run" / "over").touch()
    launcher.join(20)
    assert launcher.exitcode == 0
    assert alive(tmp_path) == []


def test_a_worker_is_told_how_it_died_and_a_kill_from_outside_counts_no_restart(
    tmp_path: Path, launched: Callable[..., Any]
) -> None:
    launcher = launched({"worker-0": -signal.SIGABRT, "worker-1": -signal.SIGUSR2}, restarts=2)
    until(lambda: "worker-0 died (SIGABRT) once too often" in log(tmp_path / "run"))
    until(lambda: len(seen(tmp_path)["worker-1"]) > 4)
    told = {"worker-0": [], "worker-1": []}  # type: dict[str, list[Any]]
    for file in (tmp_path / "run" / "seen").glob("worker-*"):
        if text := file.read_text():
            told[file.name.partition(".")[0]].append(json.loads(text)["last end"])
    assert sorted(told["worker-0"], key=str) == [None, "SIGABRT", "SIGABRT"]
    assert set(told["worker-1"]) == {None}
    (tmp_path / "run" / "over").touch()
    launcher.join(20)
    assert launcher.exitcode == 0


def test_what_no_retry_can_mend_ends_all(tmp_path: Path, launched: Callable[..., Any]) -> None:
    launcher = launched({"worker-1": EXIT_BAD_INPUT})
    launcher.join(20)
    assert launcher.exitcode == EXIT_BAD_INPUT
    assert alive(tmp_path) == []
    assert len(seen(tmp_path)["worker-1"]) == 1


def test_the_machine_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert supervise.shares(None, 1, []) == [Share(frozenset(range(4)))]
    assert [share.cores for share in supervise.shares(2, 1, [])] == [{0, 2}, {1, 3}]
    assert [len(share.cores) for share in supervise.shares(6, 1, [])] == [1] * 6
    assert [share.gpus for share in supervise.shares(None, 1, ["0", "1"])] == [("0",), ("1",)]
    assert [share.gpus for share in supervise.shares(None, 2, ["0", "1", "2"])] == [("0", "1")]
    assert {share.gpus for share in supervise.shares(2, 1, [])} == {()}
    with pytest.raises(BadInput, match="3 workers with 1 GPU"):
        supervise.shares(3, 1, ["0", "1"])
