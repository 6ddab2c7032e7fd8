"""What the tests share: the genuine data set, the command line as a real process, and a small finished run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forked
import pytest
import refusing
from forked import Forked, Prepare
from processes import Ended

from fmnist import environment

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from searching import Search

# As in the jobs, before anything imports TensorFlow. CUDA_VISIBLE_DEVICES=0 in the environment puts the tests on a GPU.
environment.settle()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# `nohup make test`: what is ignored here would be ignored in every job too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
forked.preload_jobs()

VISIBLE = {"cpu": "-1", "gpu": "0"}
"""CUDA_VISIBLE_DEVICES of the jobs of tests/gpu, by what they run on."""

READ_LATE = {"COLUMNS", "CUDA_VISIBLE_DEVICES", "FMNIST_DATA", "LINES", "NO_COLOR", "TERM"}
"""Variables that no import reads."""

Process = Forked | subprocess.Popen[str]
Start = Callable[..., Process]
Command = Callable[..., Ended]

COMPLETE = {"config.json", "trials.csv", "best.json", "model.keras", "history.json", "metrics.json", "report.html"}
"""Of the files of a whole run with a search, those that people read."""
FIXED = ("--recipe", "baseline-mlp", "--set", "data.train_limit=2000", "--set", "training.epochs=1")
RUN = Path("results", "tiny-seed0")
"""The run folder of TINY, below the folder where `fmnist` works or the fixture `finished`."""
TINY = """
description = "a search of two trials and a training of seconds"

[data]
train_limit = 3000

[model]
hidden = [32]

[training]
epochs = 3

[search]
trials = 2
epochs = 2

[search.space]
"model.hidden" = { layers = [1, 2], units = [16, 32] }
"training.learning_rate" = { min = 1e-3, max = 1e-2, sampling = "log" }
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=["gpu", "cpu"], default="gpu", help="what tests/gpu runs on [gpu]")
    parser.addoption("--rounds", type=int, default=5, help="how often races and random damage are tried [5]")


def pytest_terminal_summary(terminalreporter: "TerminalReporter", config: pytest.Config) -> None:
    """Print what tests of a device recorded as a "row", in all of pytest's processes; write it into results/."""
    reports = [report for of_kind in terminalreporter.stats.values() for report in of_kind]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    rows: list[dict[str, Any]] = [value for one in calls for name, value in one.user_properties if name == "row"]
    if not rows or "PYTEST_XDIST_WORKER" in os.environ:
        return
    from benchmarks import machine
    from fmnist.files import write_json

    on = config.getoption("on")
    path = config.rootpath / "results" / f"test-gpu-{on}.json"
    # `describe` sees the GPU that the tests used.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE[on])
        write_json(path, {"machine": machine.describe(), "rows": rows})
    terminalreporter.section("what was measured")
    for row in rows:
        terminalreporter.line("  ".join([row["name"], *(f"{key} {row[key]}" for key in row if key != "name")]))
    terminalreporter.line(str(path))


@pytest.fixture(autouse=True)
def _gpus_counted_anew() -> Iterator[None]:
    """No test sees the pretended GPUs of another one."""
    environment._gpus_of_the_machine.cache_clear()
    yield
    environment._gpus_of_the_machine.cache_clear()


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> int:
    """How often to try what comes out by chance."""
    found: int = pytestconfig.getoption("rounds")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test logs of a name that is not UTF-8 can go from one of pytest's processes to another."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the four genuine Fashion-MNIST files, found or fetched as the jobs do it."""
    from fmnist.data import dataset

    return dataset.fetch(None).directory


@pytest.fixture(scope="session")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of MNIST's layout that is not Fashion-MNIST."""
    from images import PLAIN, lay

    return lay(tmp_path_factory.mktemp("other"), PLAIN, train=8100, t10k=50)


@pytest.fixture(scope="session")
def start_anew(data_dir: Path) -> Start:
    """As `start`, by an interpreter of its own: for what a process does from its first line on."""

    def popen(cwd: Path, *args: str | Path, **env: str) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "fmnist", *map(str, args)],
            cwd=cwd,
            env={**os.environ, "FMNIST_DATA": str(data_dir), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return popen


@pytest.fixture(scope="session")
def start(data_dir: Path, start_anew: Start) -> Start:
    """Start `fmnist ARGS` in the folder `cwd`, with further environment variables given by keyword.

    It is a process that has its imports already, unless they might read one of those variables; `stderr` and `prepare`
    are those of `Forked`.
    """

    def start(
        cwd: Path, *args: str | Path, stderr: int | None = None, prepare: Prepare | None = None, **env: str
    ) -> Process:
        if env.keys() <= READ_LATE:
            environment = {**os.environ, "FMNIST_DATA": str(data_dir), **env}
            return Forked(list(map(str, args)), cwd, environment, stderr, prepare)
        assert (stderr, prepare) == (None, None)
        return start_anew(cwd, *args, **env)

    return start


def end(process: Process, code: int | None = None, seconds: float = 600) -> Ended:
    """Wait for the end of a process, which must have that exit code."""
    with process:
        stdout, stderr = process.communicate(timeout=seconds)
    assert code in (None, process.returncode), stderr
    return Ended(process.args, process.returncode, stdout, stderr)


@pytest.fixture
def fmnist(tmp_path: Path, start: Start) -> Command:
    """Run `fmnist ARGS` in `tmp_path`, started by `start`; it must end with the exit code `code`."""

    def run(*args: str | Path, code: int = 0, **options: Any) -> Ended:
        return end(start(tmp_path, *args, **options), code)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder, where `fmnist` works, with tiny.toml."""
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


@pytest.fixture
def search(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator["Search"]:
    """A search of the size that the module's SEARCH tells; what is left of its processes is killed."""
    from searching import Search, recipe

    found = Search(tmp_path, recipe(**request.module.SEARCH))
    yield found
    for left in found.running:
        left.kill()


@pytest.fixture(scope="session")
def seccomp() -> None:
    """Skip what needs a kernel that can refuse calls."""
    try:
        refusing.refusing({}, lambda: None)
    except (OSError, ValueError):
        pytest.skip("this system has no seccomp, or another processor")


@pytest.fixture
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has written outlives it without waiting for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def train_files(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A data directory without the test set."""
    folder = tmp_path_factory.mktemp("train-files")
    for path in data_dir.glob("train-*"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, train_files: Path, data_dir: Path, start: Start) -> Path:
    """A folder with tiny.toml and its run, in results/tiny-seed0, after each job; `eval` alone had the test set."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    jobs = {
        ("tune", "--recipe", "tiny.toml"): train_files,
        ("train", "--recipe", "tiny.toml"): train_files,
        ("eval", str(RUN)): data_dir,
        ("report", str(RUN)): data_dir,
    }
    for job, data in jobs.items():
        end(start(folder, *job, FMNIST_DATA=str(data)), 0)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with tiny.toml, where `fmnist` works; the path is relative to there."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return RUN
