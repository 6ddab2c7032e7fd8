"""Only what a trial does to its process counts against it; kills from outside cost nothing but time."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import tensorflow as tf
from processes import Ended, python

from fmnist.devices import Devices
from fmnist.errors import EXIT_INTERRUPTED, Restart
from fmnist.recipe import config
from fmnist.recipe.schema import ModelConfig, TrainingConfig
from fmnist.run.folder import RunDir
from fmnist.search import deaths
from fmnist.search.trial import Trials
from fmnist.search.worker import TrialRequest
from fmnist.signals import Stop
from fmnist.training import footprint
from fmnist.training.footprint import TooLarge
from fmnist.training.trainer import Trainer

WORK = """
import ctypes, os, sys
from pathlib import Path
from fmnist.search import deaths
with deaths.counted(Path(sys.argv[1]), sys.argv[2]):
    {within}
"""
Work = Callable[..., Ended]
RAISE = "getattr(ctypes.CDLL(None), 'raise')(int(sys.argv[3]))"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "trial_0_0.deaths"


@pytest.fixture
def work(marker: Path) -> Work:
    def run(within: str, *arguments: object, state: str = "", **env: str) -> Ended:
        return python(WORK.format(within=within), marker, state, *arguments, env={**os.environ, **env})

    return run


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_kills_from_outside_never_count(work: Work, signum: signal.Signals) -> None:
    for _ in range(4):
        assert work(RAISE, int(signum)).returncode == -signum
    assert work("print('done')").stdout == "done\n"


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
def test_three_crashes_fail_the_work_by_their_reason(work: Work, marker: Path, signum: signal.Signals) -> None:
    for _ in range(3):
        # What comes between is nothing to it.
        assert work(RAISE, int(signal.SIGKILL)).returncode == -signal.SIGKILL
        assert work(RAISE, int(signum)).returncode == -signum
    failed = work("print('done')")
    assert failed.stdout == ""
    assert "its process died 3 times" in failed.stderr
    assert "Fatal Python error" in failed.stderr
    # A new attempt begins from nothing.
    assert not marker.exists()
    assert work("print('done')").stdout == "done\n"


def test_three_trainings_that_came_to_a_stop_fail_the_work(work: Work) -> None:
    give_up = "deaths.tell(Path(sys.argv[1]), 'its training came to a stop'); os._exit(75)"
    for _ in range(3):
        assert work(give_up).returncode == EXIT_INTERRUPTED
    failed = work("print('done')")
    assert "its process died 3 times without a checkpoint between: its training came to a stop" in failed.stderr


def test_three_failures_of_a_gpu_fail_the_work(work: Work) -> None:
    for _ in range(3):
        # What starts the process anew is beyond this program.
        ended = work("from fmnist.errors import GpuFailed; raise GpuFailed('no CUDA\\u2026')")
        assert ended.returncode == EXIT_INTERRUPTED, ended.stderr
    failed = work("print('done')")
    assert "GpuFailed: its process died 3 times without a checkpoint between: GpuFailed: no CUDA" in failed.stderr


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        ("gpu", tf.errors.InternalError(None, None, "CUDA_ERROR_ILLEGAL_ADDRESS\nwhere"), Restart),
        ("gpu", tf.errors.InternalError(None, None, "CUDA_ERROR_NOT_SUPPORTED: operation not supported"), Restart),
        ("cpu", tf.errors.InternalError(None, None, "CUDA_ERROR_ILLEGAL_ADDRESS"), tf.errors.InternalError),
        ("gpu", tf.errors.UnknownError(None, None, "events.out; Input/output error"), tf.errors.UnknownError),
        ("gpu", ValueError("CUDA"), ValueError),
    ],
)
def test_a_gpus_errors_are_not_the_trials(
    tmp_path: Path, kind: str, error: Exception, expected: type[BaseException]
) -> None:
    def fit(*_: object, **__: object) -> None:
        raise error

    # A GPU that fails in place of one that can be made to fail.
    trainer = cast("Trainer", SimpleNamespace(devices=Devices(kind, (), "float32", "broken"), compiled=0, fit=fit))
    run = RunDir(tmp_path / "run")
    run.claim(config.load("smoke"), 0)
    with pytest.raises(expected):
        Trials(run, config.load("smoke"), 0, trainer, Stop()).run(TrialRequest("00", {}, 1), lambda *_: None)


@pytest.mark.parametrize(("compiled", "expected"), [(1, Restart), (0, TooLarge)])
def test_what_earlier_trials_hold_is_not_the_trials(tmp_path: Path, compiled: int, expected: type[Exception]) -> None:
    def fit(*_: object, **__: object) -> None:
        footprint.check(ModelConfig(hidden=(10**6, 10**6)), TrainingConfig(), 100)

    trainer = SimpleNamespace(devices=Devices("cpu", (), "float32", ""), compiled=compiled, fit=fit)
    run = RunDir(tmp_path / "run")
    run.claim(config.load("smoke"), 0)
    trials = Trials(run, config.load("smoke"), 0, cast("Trainer", trainer), Stop())
    with pytest.raises(expected):
        trials.run(TrialRequest("00", {}, 1), lambda *_: None)


def test_a_checkpoint_between_begins_the_count_anew(work: Work) -> None:
    for state in ("a", "a", "b", "b", "c"):
        assert work(RAISE, int(signal.SIGABRT), state=state).returncode == -signal.SIGABRT
    assert work("print('done')", state="c").stdout == "done\n"


def test_what_the_supervisor_saw_counts_once(work: Work) -> None:
    assert work("os._exit(3)").returncode == 3
    for _ in range(2):
        assert work("os._exit(3)", FMNIST_LAST_END="exit 3").returncode == 3
    failed = work("print('done')", FMNIST_LAST_END="exit 3")
    assert "died 3 times without a checkpoint between: exit 3" in failed.stderr


@pytest.mark.parametrize("name", [0, 1], ids=["the cgroup's", "the machine's"])
def test_the_kernels_kills_for_want_of_memory_count(work: Work, marker: Path, name: int) -> None:
    counts = list(deaths.oom_kills())
    if name >= len(counts):
        pytest.skip("one count alone here")
    for _ in range(3):
        work(RAISE, int(signal.SIGKILL))
        left = json.loads(marker.read_text())
        # As if the kernel had killed one since.
        left["oom"] = {counts[name]: left["oom"][counts[name]] - 1}
        marker.write_text(json.dumps(left) + "\n")
    failed = work("print('done')")
    assert "died 3 times without a checkpoint between: the kernel killed it for want of memory" in failed.stderr


def test_the_counts_of_another_machine_say_nothing(work: Work, marker: Path) -> None:
    work(RAISE, int(signal.SIGKILL))
    left = json.loads(marker.read_text())
    left["oom"] = {f"another {name}": -9 for name in left["oom"]}
    marker.write_text(json.dumps(left) + "\n")
    work(RAISE, int(signal.SIGKILL))
    assert json.loads(marker.read_text())["own"] == []


@pytest.mark.parametrize(
    "left", [b"", b"3", b"\n", b"\xff\x00", b'{"own": 3}', b'{"own": [], "state": "", "oom": [1]}', b"9" * 5000]
)
def test_a_damaged_file_is_no_evidence(work: Work, marker: Path, left: bytes) -> None:
    marker.write_bytes(left)
    assert work("print('done')").stdout == "done\n"
    assert not marker.exists()


def test_what_python_sees_is_no_death(work: Work, marker: Path) -> None:
    for _ in range(4):
        assert work("sys.exit(75)").returncode == 75
        assert not marker.exists()


@pytest.mark.parametrize(
    ("code", "oom", "own"),
    [
        (3, False, "exit 3"),
        (255, False, "exit 255"),
        (75, False, None),
        (130, False, None),
        (137, False, None),
        (137, True, "the kernel killed it for want of memory"),
        (139, False, "SIGSEGV"),
        (-signal.SIGKILL, False, None),
        (-signal.SIGKILL, True, "the kernel killed it for want of memory"),
        (-signal.SIGTERM, True, None),
        (-signal.SIGABRT, False, "SIGABRT"),
        (-signal.SIGBUS, False, "SIGBUS"),
    ],
)
def test_an_exit_code_tells_who_ended_the_process(code: int, oom: bool, own: str | None) -> None:
    assert deaths.own_end(code, {"boot": 3}, {"boot": 3 + oom}) == own


def test_the_cgroup_knows_better_than_the_machine() -> None:
    assert deaths.own_end(-9, {"group": 0, "boot": 3}, {"group": 0, "boot": 4}) is None
    assert deaths.own_end(-9, {"group": 0, "boot": 3}, {"another": 0, "boot": 4}) is not None
