"""How far a search is, as a person at a terminal sees it."""

from pathlib import Path

import pytest
from conftest import Command, Start
from test_progress import TERMINAL, on_terminal


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.faults)])
def test_a_terminal_shows_the_table_below_the_log(tiny: Path, train_files: Path, start: Start, workers: str) -> None:
    tune = ("tune", "--recipe", "tiny.toml", "--workers", workers)
    options = {**TERMINAL, "COLUMNS": "120", "FMNIST_DATA": str(train_files)}
    shown = on_terminal(lambda stderr: start(tiny, *tune, stderr=stderr, **options))
    assert "0 of 2 trials done" in shown
    assert "2 of 2 trials done, 0 running, 0 failed, best val_accuracy" in shown
    assert "trial 1, epoch 2/2" in shown


def test_a_damaged_table_is_one_line(run: Path, tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / run / "trials.csv").write_text("trial,status,score,seconds\n0,COMPLETED,0.9,x\n")
    status = fmnist("tune", "--status", run, code=64)
    assert status.stderr.startswith(f"fmnist: {run}/trials.csv is damaged")
    assert status.stderr.count("\n") == 1
