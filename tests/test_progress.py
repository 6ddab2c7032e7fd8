"""Bars on a real terminal, and nothing of them in a log."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command, Process, Start
from processes import python

TERMINAL = {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
BAR = """
import logging, sys
from pathlib import Path
from fmnist.progress import bar, folder_bar
logging.basicConfig(level=sys.argv[1], format="%(message)s", stream=sys.stderr)
with bar("train", 1000, "images") as advance:
    for epoch in range(4):
        logging.info("epoch %d", epoch)
        advance(250)
logging.info("afterwards")
with folder_bar("data", Path(sys.argv[2]), 100):
    Path(sys.argv[2], "file").write_bytes(bytes(100))
"""


def on_terminal(start: Callable[[int], Process]) -> str:
    """What the process that `start` gives a terminal as stderr writes to it, without the codes that move the cursor."""
    ours, theirs = pty.openpty()
    with start(theirs) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            written += part
        assert process.wait() == 0, written.decode()
    os.close(ours)
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written.decode())


def show_bar(level: str, folder: Path) -> str:
    environment = {**os.environ, **TERMINAL}
    command = [sys.executable, "-c", BAR, level, str(folder)]
    return on_terminal(lambda stderr: subprocess.Popen(command, env=environment, stderr=stderr, text=True))


def test_a_terminal_shows_a_bar_below_the_lines_of_the_log(tmp_path: Path) -> None:
    text = show_bar("INFO", tmp_path)
    assert re.findall(r"epoch \d", text) == [f"epoch {epoch}" for epoch in range(4)]
    assert re.search(r"train .* 100%", text)
    assert "images/s, " in text
    assert " left" in text
    assert "data " in text
    # The log has its own stderr again.
    assert re.search(r"[\r\n]afterwards\r\n", text)


def test_a_quiet_terminal_shows_nothing(tmp_path: Path) -> None:
    assert show_bar("WARNING", tmp_path) == ""


def test_a_log_has_plain_lines_alone(tmp_path: Path) -> None:
    result = python(BAR, "INFO", tmp_path, check=True)
    assert result.stderr.splitlines() == [*(f"epoch {epoch}" for epoch in range(4)), "afterwards"]


@pytest.mark.parametrize("option", ["--quiet", "-q"])
def test_a_quiet_job_prints_its_result_alone(run: Path, tmp_path: Path, fmnist: Command, option: str) -> None:
    (tmp_path / run / "metrics.json").unlink()
    result = fmnist("eval", run, option)
    assert result.stderr == ""
    assert re.fullmatch(r"test accuracy 0\.\d{4} \(95% interval .*\)\n", result.stdout)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("train", r"validation accuracy 0\.\d{4}, epoch 3 of 3; results/tiny-seed0/model\.keras\n"),
        ("tune", r"best of 2 trials: \d, val_accuracy 0\.\d{4}\n  --set='model.hidden=.* \\\n.*learning_rate=0\.\d+\n"),
    ],
)
def test_a_quiet_training_prints_its_result_alone(run: Path, fmnist: Command, job: str, said: str) -> None:
    result = fmnist(job, "--recipe", "tiny.toml", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(said, result.stdout)


def test_an_evaluation_on_a_terminal_shows_how_fast_it_is(run: Path, tmp_path: Path, start: Start) -> None:
    (tmp_path / run / "metrics.json").unlink()
    text = on_terminal(lambda stderr: start(tmp_path, "eval", run, stderr=stderr, **TERMINAL))
    assert re.search(r"eval .*%.*images/s", text)
