"""Interrupted jobs: they stop at an epoch's end, lose nothing, and go on to the result of an uninterrupted one."""

import functools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Command, Process, Start, end
from PIL import Image, ImageOps
from processes import program
from searching import until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.run.folder import read_trials

# Callbacks with a state of their own, dropout, and epochs short enough for a test.
TRAIN = """
description = "a training to interrupt"

[data]
train_limit = 3000

[model]
hidden = [32]
batch_normalization = true
dropout = 0.2

[training]
epochs = 24
ema_momentum = 0.9
early_stopping = { monitor = "val_accuracy", patience = 23 }
reduce_lr_on_plateau = { patience = 1, factor = 0.7 }
"""

TUNE = ("tune", "--recipe", "tiny.toml", "--set", "search.epochs=10")
# An epoch of minutes.
LONG = ("--recipe", "baseline-mlp", "--set", "model.hidden=[4096, 4096]", "--set", "training.batch_size=16")


def wait_for(process: Process, text: str) -> None:
    """Read the log up to a line that begins with `text`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(text):
            return
    raise AssertionError(f"no {text!r} in {''.join(seen)}")


def signal_at(text: str, signum: signal.Signals) -> None:
    """Let the signal come when the log says `text`: while that epoch ends, however slow whoever reads the log is."""
    # nohup means what it says, but not of these tests.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    make = logging.getLogRecordFactory()

    def make_and_signal(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.getMessage().startswith(text):
            os.kill(os.getpid(), signum)
        return record

    logging.setLogRecordFactory(make_and_signal)


def signal_at_open(name: str, signum: signal.Signals) -> None:
    """Let the signal come when a file of that name is opened, once."""
    waiting = [signum]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and waiting and str(arguments[0]).endswith(name):
            os.kill(os.getpid(), waiting.pop())

    sys.addaudithook(hook)


def epochs_logged(folder: Path) -> Counter[int]:
    """How often TensorBoard's event files hold each epoch."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return Counter(event.step for event in events.Tensors("curves/loss"))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in read_trials(path)]


def trained(folder: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The final weights, and the history but for its times."""
    run = folder / "results" / "own-seed0"
    told = json.loads((run / "history.json").read_text())
    # The file of the model holds the time at which it was written.
    del told["history"]["seconds"], told["seconds"], told["images_per_second"], told["model"]
    return keras.models.load_model(run / "model.keras").get_weights(), told


def test_a_training_that_is_interrupted_four_times_ends_as_one_that_is_not(tmp_path: Path, start: Start) -> None:
    folders = tmp_path / "whole", tmp_path / "interrupted"
    for folder in folders:
        folder.mkdir()
        (folder / "own.toml").write_text(TRAIN)
    train = ("train", "--recipe", "own.toml")
    whole, interrupted = folders
    reference = start(whole, *train)
    checkpoint = interrupted / "results" / "own-seed0" / "checkpoint" / "train.npz"
    for epoch in (2, 7, 12):
        prepare = functools.partial(signal_at, f"epoch {epoch:2}/24", signal.SIGTERM)
        end(start(interrupted, *train, prepare=prepare), 75)
        assert checkpoint.exists()
    prepare = functools.partial(signal_at, "epoch 17/24", signal.SIGKILL)
    end(start(interrupted, *train, prepare=prepare), -signal.SIGKILL)
    assert checkpoint.exists()
    assert re.search("^going on after epoch", end(start(interrupted, *train), 0).stderr, re.MULTILINE)
    assert not checkpoint.exists()
    end(reference, 0)

    (weights, told), (expected_weights, expected) = trained(interrupted), trained(whole)
    assert told == expected
    assert len(set(expected["history"]["learning_rate"])) > 2
    for array, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(array, other)

    logged = [epochs_logged(folder / "results" / "own-seed0" / "tb" / "final" / "validation") for folder in folders]
    assert logged[0] == Counter(range(24))
    assert logged[1].keys() == logged[0].keys()


def test_a_search_that_is_interrupted_in_mid_trial_ends_as_one_that_is_not(tiny: Path, start: Start) -> None:
    whole, interrupted = tiny / "whole", tiny / "interrupted"
    reference = start(tiny, *TUNE, "--run", whole)
    prepare = functools.partial(signal_at, "trial 1, epoch  3/10", signal.SIGHUP)
    end(start(tiny, *TUNE, "--run", interrupted, prepare=prepare), 75)
    assert len(list((interrupted / "checkpoint").glob("trial_1_*.npz"))) == 1
    resumed = end(start(tiny, *TUNE, "--run", interrupted), 0)
    assert re.search("^going on after epoch", resumed.stderr, re.MULTILINE)
    # What an earlier process has said is not said again.
    assert "trial 1, epoch  2/10" not in resumed.stderr
    assert "trial 1, epoch 10/10" in resumed.stderr
    end(reference, 0)
    assert without_seconds(interrupted / "trials.csv") == without_seconds(whole / "trials.csv")
    assert (interrupted / "best.json").read_text() == (whole / "best.json").read_text()


@pytest.mark.parametrize(("job", "epoch"), [("train", "epoch  3/24"), ("tune", "trial 0, epoch  3/10")])
def test_a_job_that_goes_on_on_other_devices_says_so(tiny: Path, fmnist: Command, job: str, epoch: str) -> None:
    (tiny / "own.toml").write_text(TRAIN)
    command = [*(("train", "--recipe", "own.toml") if job == "train" else TUNE), "--run", "run", "--devices"]
    fmnist(*command, "cpu", prepare=functools.partial(signal_at, epoch, signal.SIGTERM), code=75)
    other = fmnist(*command, "cpu:2", prepare=functools.partial(signal_at, "going on", signal.SIGTERM), code=75)
    assert f"{job} goes on, but began with other devices (config.json holds both)" in other.stderr
    record = json.loads((tiny / "run" / "config.json").read_bytes())["jobs"][job]
    (before,) = record["went_on_from"]
    assert before["devices"].startswith("1 CPU")
    assert record["devices"].startswith("2 CPU")


def test_a_second_sigint_ends_in_the_middle_of_an_epoch(tmp_path: Path, start: Start) -> None:
    with start(tmp_path, "train", *LONG, "--run", "run") as process:
        wait_for(process, "train baseline-mlp")
        process.send_signal(signal.SIGINT)
        wait_for(process, "SIGINT: stopping at the end of this epoch")
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert time.monotonic() - begin < 2
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize(
    ("job", "file", "signum"),
    [
        (("eval",), "model.keras", signal.SIGTERM),
        (("eval", "--tta"), "-idx1-ubyte.gz", signal.SIGUSR2),
        (("report",), "history.json", signal.SIGHUP),
        (("export", "--format", "savedmodel"), "model.keras", signal.SIGUSR2),
        (("predict", "image.png", "--run"), "model.keras", signal.SIGINT),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_job_without_epochs_ends_with_75_too(
    run: Path, tmp_path: Path, start: Start, job: tuple[str, ...], file: str, signum: signal.Signals
) -> None:
    ImageOps.expand(Image.linear_gradient("L").resize((20, 20)), 4).save(tmp_path / "image.png")
    files = [path for path in (tmp_path / run).rglob("*") if path.is_file() and path.name != "config.json"]
    before = [path.read_bytes() for path in files]
    name, *options = job
    command = [name, *options, run] if options[-1:] == ["--run"] else [name, run, *options]
    ended = end(start(tmp_path, *command, prepare=functools.partial(signal_at_open, file, signum)), 75, seconds=60)
    assert (ended.stdout, ended.stderr) == ("", f"{signum.name}: stopping; the same command goes on\n")
    assert [path.read_bytes() for path in files] == before
    assert not list((tmp_path / run).rglob(".*"))


@pytest.mark.parametrize("job", [("train", "--recipe", "baseline-mlp"), ("tune", "--recipe", "smoke")], ids=" ".join)
def test_a_job_that_waits_for_its_data_heeds_a_signal(tmp_path: Path, job: tuple[str, ...]) -> None:
    """The download hangs, as on a network that does not answer."""
    place, told = tmp_path / "results", tmp_path / "told"
    tools = program(tmp_path / "bin" / "apt-get", f"#!/bin/sh\n: >{told}\nexec sleep 600\n").parent
    # Nothing is found or fetched before.
    code = (
        "from pathlib import Path; from fmnist import __main__; from fmnist.data import dataset;"
        "dataset.SYSTEM = Path('/nowhere'); dataset._KERAS_DOWNLOAD = 'raise SystemExit(1)'; __main__.main()"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tools}:{os.environ['PATH']}", "FMNIST_DATA": ""}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", code, *job, "--run", str(place)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: told.exists() or process.poll() is not None)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75
    assert time.monotonic() - begin < 10
    assert stderr.splitlines()[-1] == "SIGTERM: stopping; the same command goes on"
    assert not place.exists()
