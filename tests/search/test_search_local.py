"""The launcher: processes that stand for the chief and its workers, real signals, and what is left of them."""

import contextlib
import json
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from processes import is_gone, program
from searching import log, process, recipe, until

from fmnist import environment
from fmnist.errors import EXIT_BAD_INPUT, EXIT_GPU_FAILED, EXIT_INTERRUPTED, BadInput, SearchFailed
from fmnist.run.folder import RunDir
from fmnist.search import local, supervise
from fmnist.search.launch import launch as launcher
from fmnist.search.supervise import Share
from fmnist.signals import Stop, stop_on_signals

MEMBER = """
import json, os, pathlib, signal, sys, time
run, plan = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
name = os.environ["KERASTUNER_TUNER_ID"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
facts = {"cores": sorted(os.sched_getaffinity(0)), "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
facts |= {"arguments": sys.argv[3:]}
facts |= {"token": os.environ["FMNIST_TOKEN"], "session": os.getsid(0)}
facts |= {"files": [name for name in os.environ if name.startswith(("FMNIST_TOKEN_", "FMNIST_TLS_"))]}
facts |= {"last end": os.environ.get("FMNIST_LAST_END"), "chief's": os.environ["KERASTUNER_ORACLE_IP"]}
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


def tune(path: Path, plan: dict[str, int], role: str = "", workers: int = 2) -> None:
    """`fmnist tune`, but for its processes, on a machine with a pretended GPU that Slurm has named."""
    tools = path.parent / "tools"
    tools.mkdir()
    (tools / "member.py").write_text(MEMBER)
    member = [sys.executable, str(tools / "member.py"), str(path), json.dumps(plan)]
    sys.executable = str(program(tools / "python", f'#!/bin/sh\nexec {shlex.join(member)} "$@"\n'))
    sys.orig_argv = ["python", "/venv/bin/fmnist", "tune"]
    program(tools / "nvidia-smi", "#!/bin/sh\necho GPU 0; echo GPU 1\n")
    os.environ |= {"PATH": f"{tools}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "1"}
    os.environ |= {"KERASTUNER_TUNER_ID": role, "KERASTUNER_ORACLE_IP": "host-of-the-chief", "FMNIST_TOKEN": "secret"}
    if not role:
        os.environ |= dict.fromkeys(("FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY"), "elsewhere")
    environment._gpus_of_the_machine.cache_clear()
    with contextlib.suppress(SearchFailed):  # without trials
        launcher(RunDir(path), recipe(), 0, None, "auto", "auto", stop_on_signals(), workers=workers)


class Launched:
    """A launcher and the members that it has started."""

    def __init__(self, path: Path, started: BaseProcess, members: int) -> None:
        self.path = path
        self.launcher = started
        self.members = members

    def seen(self) -> dict[str, list[int]]:
        """Return the process ids that each member has had."""
        found: dict[str, list[int]] = {}
        for file in (self.path / "seen").iterdir():
            name, _, pid = file.name.partition(".")
            found.setdefault(name, []).append(int(pid))
        return found

    def facts(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what each process has found, with its member's name."""
        files = list((self.path / "seen").iterdir())
        return [(file.name.partition(".")[0], json.loads(text)) for file in files if (text := file.read_text())]

    def alive(self) -> list[int]:
        return [pid for pids in self.seen().values() for pid in pids if not is_gone(pid)]

    def all_there(self) -> None:
        until(lambda: len(self.facts()) == self.members)

    def ends(self, code: int) -> None:
        """Check that the launcher ends, and all with it."""
        self.launcher.join(20)
        assert self.launcher.exitcode == code
        assert self.alive() == []

    def is_over(self) -> None:
        """End the search."""
        (self.path / "over").touch()
        self.ends(0)


Launch = Callable[..., Launched]
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def launched(tmp_path: Path) -> Launch:
    def start(plan: dict[str, int] | None = None, shares: list[Share] | None = None, **kwargs: Any) -> Launched:
        (tmp_path / "run" / "seen").mkdir(parents=True)
        return Launched(
            tmp_path / "run", process(launch, tmp_path / "run", plan or {}, shares or [Share()] * 2, **kwargs), 3
        )

    return start


@pytest.fixture
def tuned(tmp_path: Path) -> Launch:
    def start(plan: dict[str, int] | None = None, role: str = "", workers: int = 2) -> Launched:
        (tmp_path / "run" / "seen").mkdir(parents=True)
        return Launched(
            tmp_path / "run", process(tune, tmp_path / "run", plan or {}, role, workers), workers + (not role)
        )

    return start


def test_the_search_ends_with_its_chief(launched: Launch) -> None:
    search = launched()
    search.all_there()
    search.is_over()


def test_each_member_has_its_share(launched: Launch) -> None:
    search = launched(shares=[Share(frozenset(CORES[:1]), ("0", "1")), Share(frozenset(CORES[-1:]))])
    search.all_there()
    facts = dict(search.facts())
    assert (facts["worker-0"]["gpus"], facts["worker-1"]["gpus"], facts["chief"]["gpus"]) == ("0,1", "-1", "-1")
    assert (facts["worker-0"]["cores"], facts["worker-1"]["cores"]) == (CORES[:1], CORES[-1:])
    assert len({fact["token"] for fact in facts.values()}) == 1
    assert len(facts["chief"]["token"]) > 30
    assert len({fact["session"] for fact in facts.values()}) == 3
    search.is_over()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_with_75(launched: Launch, signum: signal.Signals) -> None:
    search = launched()
    search.all_there()
    assert search.launcher.pid
    os.kill(search.launcher.pid, signum)
    search.ends(EXIT_INTERRUPTED)


def test_no_process_outlives_a_killed_launcher(launched: Launch) -> None:
    search = launched()
    search.all_there()
    search.launcher.kill()
    search.launcher.join()
    until(lambda: search.alive() == [])


def test_a_worker_that_keeps_dying_is_given_up_and_the_others_go_on(launched: Launch) -> None:
    search = launched({"worker-1": 3}, restarts=2)
    until(lambda: "worker-1 died (exit 3) once too often" in log(search.path))
    assert len(search.seen()["worker-1"]) == 3
    search.is_over()


def test_a_worker_whose_gpu_is_broken_is_not_started_again(launched: Launch) -> None:
    search = launched({"worker-0": EXIT_GPU_FAILED, "worker-1": EXIT_GPU_FAILED})
    search.ends(EXIT_GPU_FAILED)
    assert [len(pids) for name, pids in search.seen().items() if name != "chief"] == [1, 1]


def test_a_member_that_interrupts_itself_for_ever_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one whose file system fails for good."""
    monkeypatch.setattr(supervise, "_PAUSES", (0.0, 0.0))
    member = supervise.Member("worker-0", ["sh", "-c", "exit 75"], dict(os.environ))
    member.start()

    def given_up() -> bool:
        member.revive()
        return member.given_up

    until(given_up)
    restarts = sum(record.getMessage().endswith("starting it again") for record in caplog.records)
    assert restarts == supervise._INTERRUPTIONS
    # A scheduler may try again when its file system works.
    assert supervise._given_up([member]) == 75


def test_a_search_without_workers_ends(launched: Launch) -> None:
    launched({"worker-0": 3, "worker-1": 255}, restarts=1).ends(1)


@pytest.mark.parametrize("name", ["chief", "worker-0"])
def test_a_member_is_started_again_after_however_many_kills(launched: Launch, name: str) -> None:
    search = launched(restarts=0)
    search.all_there()
    for kills in range(1, 4):
        (running,) = (pid for pid in search.seen()[name] if not is_gone(pid))
        os.kill(running, signal.SIGKILL)
        until(lambda kills=kills: len(search.seen()[name]) == kills + 1)  # type: ignore[misc]
    search.is_over()


def test_a_worker_is_told_how_it_died_and_a_kill_from_outside_counts_no_restart(launched: Launch) -> None:
    search = launched({"worker-0": -signal.SIGABRT, "worker-1": -signal.SIGUSR2}, restarts=2)
    until(lambda: "worker-0 died (SIGABRT) once too often" in log(search.path))
    until(lambda: len(search.seen()["worker-1"]) > 4)
    told = [(name, facts["last end"]) for name, facts in search.facts()]
    assert sorted((end for name, end in told if name == "worker-0"), key=str) == [None, "SIGABRT", "SIGABRT"]
    assert {end for name, end in told if name == "worker-1"} == {None}
    search.is_over()


def test_what_no_retry_can_mend_ends_all(launched: Launch) -> None:
    search = launched({"worker-1": EXIT_BAD_INPUT})
    search.ends(EXIT_BAD_INPUT)
    assert len(search.seen()["worker-1"]) == 1


def test_four_workers_share_one_gpu_and_divide_the_processors(tuned: Launch) -> None:
    search = tuned(workers=4)
    search.all_there()
    facts = dict(search.facts())
    assert facts.keys() == {"chief", *(f"worker-{number}" for number in range(4))}
    chief = facts.pop("chief")
    assert (chief["gpus"], chief["cores"]) == ("-1", CORES)
    assert {fact["gpus"] for fact in facts.values()} == {"1"}
    # Started as their parent was.
    assert [fact["arguments"] for fact in (chief, *facts.values())] == [["/venv/bin/fmnist", "tune", "--workers=1"]] * 5
    for number in range(4):
        assert facts[f"worker-{number}"]["cores"] == (CORES[number::4] or [CORES[number % len(CORES)]])
    # Not those of another search.
    assert {fact["chief's"] for fact in facts.values()} == {""}
    assert {fact["token"] for fact in facts.values()} == {chief["token"]} != {"secret"}
    assert [fact["files"] for fact in (chief, *facts.values())] == [[]] * 5
    search.is_over()


def test_several_workers_in_place_of_one_share_what_it_has(tuned: Launch) -> None:
    search = tuned(role="worker-3")
    search.all_there()
    facts = dict(search.facts())
    assert facts.keys() == {"worker-3-0", "worker-3-1"}
    for number in range(2):
        fact = facts[f"worker-3-{number}"]
        assert (fact["gpus"], fact["chief's"], fact["token"]) == ("1", "host-of-the-chief", "secret")
        assert fact["cores"] == (CORES[number::2] or CORES)
    search.is_over()


def test_a_stop_ends_workers_in_place_of_one_with_75(tuned: Launch) -> None:
    search = tuned(role="worker-3")
    search.all_there()
    search.launcher.terminate()
    search.ends(EXIT_INTERRUPTED)


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"worker-3-1": EXIT_BAD_INPUT}, EXIT_BAD_INPUT),
        ({"worker-3-1": EXIT_INTERRUPTED}, EXIT_INTERRUPTED),
        ({"worker-3-0": 1, "worker-3-1": 1}, 1),
        ({"worker-3-0": EXIT_GPU_FAILED, "worker-3-1": 1}, 1),
        ({"worker-3-0": EXIT_GPU_FAILED, "worker-3-1": EXIT_GPU_FAILED}, EXIT_GPU_FAILED),
    ],
)
def test_workers_in_place_of_one_end_as_that_one_would(tuned: Launch, plan: dict[str, int], code: int) -> None:
    tuned(plan, role="worker-3").ends(code)


def test_tools_that_are_too_old_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "setpriv", "#!/bin/sh\necho 'unrecognized option' >&2; exit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    local._works.cache_clear()
    assert local._if_there(["setpriv", "--pdeathsig", "KILL"]) == []
    assert local._if_there(["setpriv-of-another-system"]) == []
    local._works.cache_clear()


@pytest.mark.parametrize(("gpus_per_worker", "expected"), [(1, "0"), (2, "0,1")])
def test_a_worker_alone_takes_no_more_gpus_than_a_worker_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus_per_worker: int, expected: str
) -> None:
    program(tmp_path / "nvidia-smi", "#!/bin/sh\necho GPU 0; echo GPU 1; echo GPU 2\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-0")
    environment._gpus_of_the_machine.cache_clear()
    try:
        with pytest.raises(BadInput, match="nowhere"):
            launcher(
                *(RunDir(tmp_path / "run"), recipe(), 0, tmp_path / "nowhere", "auto", "auto", Stop()),
                gpus_per_worker=gpus_per_worker,
            )
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    finally:
        environment._gpus_of_the_machine.cache_clear()


def test_a_number_of_gpus_is_for_one_worker() -> None:
    assert supervise.gpus_to_share("2", None) == []
    with pytest.raises(BadInput, match="--devices 2 goes with one worker; for several, give --gpus-per-worker"):
        supervise.gpus_to_share("2", 2)


def test_the_machine_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert supervise.shares(None, 1, []) == [Share(frozenset(range(4)))]
    assert [share.cores for share in supervise.shares(2, 1, [])] == [{0, 2}, {1, 3}]
    assert [len(share.cores) for share in supervise.shares(6, 1, [])] == [1] * 6
    assert [share.gpus for share in supervise.shares(None, 1, ["0", "1"])] == [("0",), ("1",)]
    assert [share.gpus for share in supervise.shares(None, 2, ["0", "1", "2"])] == [("0", "1")]
    assert {share.gpus for share in supervise.shares(2, 1, [])} == {()}
    assert [share.gpus for share in supervise.shares(3, 1, ["0", "1"])] == [("0",), ("1",), ("0",)]
    for workers in (None, 2):
        with pytest.raises(BadInput, match=r"[12] workers with 4 GPUs each: this machine has 3"):
            supervise.shares(workers, 4, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("processors", "available", "memory", "gpus", "expected"),
    [
        (16, 64, "143771, Default, Disabled", 1, 4),
        (16, 64, "143771, Default, [N/A]", 2, 4),
        (16, 64, "143771, Default, Disabled", 3, 3),
        (16, 64, "143771, Default, Disabled", 8, 8),
        (6, 64, "143771, Default, Disabled", 1, 3),
        (2, 64, "143771, Default, Disabled", 1, 1),
        (16, 15, "143771, Default, Disabled", 1, 3),
        (16, 3, "143771, Default, Disabled", 2, 2),
        (16, 64, "8188, Default, Disabled\n143771, Default, Disabled", 2, 2),
        (16, 64, "[N/A], Default, Disabled", 1, 1),
        (16, 64, "143771, Default, Enabled", 1, 1),
        (16, 64, "143771, Exclusive_Process, Disabled", 1, 1),
        (16, 64, "Field mig.mode.current is not a valid field to query.", 1, 1),
    ],
)
def test_as_many_workers_as_processors_and_memory_of_the_gpus_allow(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    processors: int,
    available: int,
    memory: str,
    gpus: int,
    expected: int,
) -> None:
    """available: GiB of the machine; memory: MiB of the GPUs, compute mode and parts, as nvidia-smi prints them."""
    monkeypatch.setattr("fmnist.memory.available", lambda: available * 2**30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program(tmp_path / "nvidia-smi", f"#!/bin/sh\necho '{memory}'\n")
    names = [str(number) for number in range(gpus)]
    shares = supervise.shares(None, 1, names)
    assert Counter(share.gpus for share in shares) == {(name,): expected // gpus for name in names}
    assert len(supervise.shares(1, 1, names)) == 1
    assert len(supervise.shares(None, 1, [])) == 1
