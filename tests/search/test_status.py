"""How far a search is, as a person at a terminal sees it."""

import os
import pty
from pathlib import Path

import pytest
from conftest import TINY, Command, Start

TERMINAL = {"TERM": "xterm", "COLUMNS": "120"}


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.faults)])
def test_a_terminal_shows_the_table_below_the_log(
    tmp_path: Path, train_files: Path, start: Start, workers: str
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    ours, theirs = pty.openpty()
    tune = ("tune", "--recipe", "tiny.toml", "--workers", workers)
    with start(tmp_path, *tune, stderr=theirs, FMNIST_DATA=str(train_files), **TERMINAL) as job:
        os.close(theirs)
        shown = _read(ours)
    assert job.returncode == 0, shown
    assert "0 of 2 trials done" in shown
    assert "2 of 2 trials done, 0 running, 0 failed, best val_accuracy" in shown
    assert "trial 1, epoch 2/2" in shown


def _read(terminal: int) -> str:
    parts = []
    # The terminal's end is an error on Linux.
    while part := _part(terminal):
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def _part(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_a_damaged_table_is_one_line(run: Path, tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / run / "trials.csv").write_text("trial,status,score,seconds\n0,COMPLETED,0.9,x\n")
    status = fmnist("tune", "--status", run)
    assert status.returncode == 64
    assert status.stderr.startswith(f"fmnist: {run}/trials.csv is damaged")
    assert status.stderr.count("\n") == 1
