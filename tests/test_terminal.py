"""A terminal that goes away, a pipe that nobody reads: what is shown may be lost, and the job does not notice."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, Command, Start, end
from test_progress import TERMINAL

SHOWN = ("--recipe", "tiny.toml", "--run", "own")


def read_until(terminal: int, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 65536)


@pytest.mark.parametrize("job", ["train", "tune"])
@pytest.mark.parametrize("signum", [None, signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_a_job_outlives_its_terminal(tmp_path: Path, start: Start, job: str, signum: signal.Signals | None) -> None:
    """With a signal, as where a connection is lost, and without, as with nohup."""
    toml = TINY if job == "tune" else TINY.partition("[search]")[0]
    # Long enough for the signal.
    epochs = 300 if signum else 30
    (tmp_path / "tiny.toml").write_text(re.sub("epochs = [23]", f"epochs = {epochs}", toml))
    ours, theirs = pty.openpty()
    with start(tmp_path, job, *SHOWN, stderr=theirs, **TERMINAL) as process:
        os.close(theirs)
        read_until(ours, f"epoch {1:{len(str(epochs))}}/{epochs}".encode())
        os.close(ours)
        if signum:
            process.send_signal(signum)
        assert process.wait(120) == (75 if signum else 0)
    assert (tmp_path / "own" / ("best.json" if job == "tune" else "model.keras")).exists() or signum
    end(start(tmp_path, job, *SHOWN), 0)


def test_a_result_that_nobody_reads_is_kept_all_the_same(run: Path, tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / run / "metrics.json").unlink()
    fmnist("eval", run, prepare=close_the_pipes)
    assert (tmp_path / run / "metrics.json").exists()


def test_a_job_without_stdout_replaces_its_result(run: Path, tmp_path: Path) -> None:
    """As a daemon may start it: there is a file now, which could be what stdout was sent to."""
    without = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "fmnist", "report", str(run)]
    for _ in range(2):
        subprocess.run(without, cwd=tmp_path, check=True)
    assert (tmp_path / run / "report.html").exists()


def close_the_pipes() -> None:
    """Nobody reads stdout and stderr any more."""
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)


def to_a_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def test_a_result_that_a_full_disk_refuses_is_told(run: Path, fmnist: Command) -> None:
    stderr = fmnist("report", run, prepare=to_a_full_disk, code=64).stderr
    assert stderr.count("\n") == 1
    assert "No space left on device" in stderr


def test_a_log_on_a_full_disk_stops_nothing(run: Path, tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / run / "metrics.json").unlink()
    with open("/dev/full", "wb") as full:
        assert fmnist("eval", run, stderr=full.fileno()).stdout.startswith("test accuracy")
