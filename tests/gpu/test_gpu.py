"""What must be seen on a machine with a GPU: `make test-gpu`.

It prints a table, and writes it to results/test-gpu-gpu.json. `--on cpu` tries the tests themselves on any machine.
"""

import fcntl
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import VISIBLE, Command, Start, end
from test_signals import signal_at

from fmnist.recipe import config
from fmnist.run.folder import read_trials
from jobs import engines

pytestmark = pytest.mark.gpu

# Some recipes have no validation images of their own.
EPOCH = ("--set", "data.split=tuned-mlp", "--set", "data.train_limit=20000", "--set", "training.epochs=1")
TRIAL = ("--set", "search.trials=1", "--set", "search.epochs=1")
LONG = ("--recipe", "quick-mlp", "--set", "data.train_limit=10000", "--set", "training.epochs=30")
# What an epoch's validation may differ by, of the loss relatively, of the accuracy in points of 100. On a GPU, TF32
# has ten bits of a product's factors, bfloat16 seven.
TOLERANCES = {"float32": (0.03, 1.0), "mixed_bfloat16": (0.08, 2.0), "mixed_float16": (0.08, 2.0)}
MEMORY = 4096
"""MiB that a process may take of a GPU, which would take all of it if TensorFlow were let."""

Run = Callable[..., Path]
Row = Callable[..., None]


@pytest.fixture(scope="session")
def place(pytestconfig: pytest.Config) -> dict[str, str]:
    """The environment that a job sees the device in."""
    on = pytestconfig.getoption("on")
    if on == "gpu" and shutil.which("nvidia-smi") is None:
        pytest.skip("this machine has no NVIDIA GPU")
    return {"CUDA_VISIBLE_DEVICES": VISIBLE[on]}


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """The value of --devices."""
    return "1" if pytestconfig.getoption("on") == "gpu" else "cpu"


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Row:
    """Add a row to the table, which is printed and written at the end."""
    return lambda name, **figures: record_property("row", {"name": name, **figures})


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run side by side with the tests of pytest's other processes; but what is timed runs alone."""
    alone = request.node.get_closest_marker("alone")
    folder = tmp_path_factory.getbasetemp()
    with (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder).joinpath("turn").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture
def train(fmnist: Command, tmp_path: Path, place: dict[str, str]) -> Run:
    """Train a recipe, with one trial if it has a search; return the run folder."""

    def run(recipe: str, name: str, on: str, *options: str) -> Path:
        folder = tmp_path / name
        searched = config.load(recipe).search is not None
        for job, more in ("tune", TRIAL), ("train", TRIAL if searched else ()):
            if job == "train" or searched:
                words = [job, "--recipe", recipe, "--run", folder, "--devices", on, *EPOCH, *more, *options]
                fmnist(*words, CUDA_VISIBLE_DEVICES="-1" if on == "cpu" else place["CUDA_VISIBLE_DEVICES"])
        return folder

    return run


def last(run: Path) -> dict[str, float]:
    """The figures of a training's last epoch."""
    history = json.loads((run / "history.json").read_text())
    return {name: values[-1] for name, values in history["history"].items()}


def used_on(run: Path) -> str:
    jobs: dict[str, dict[str, str]] = json.loads((run / "config.json").read_text())["jobs"]
    return jobs["train"]["devices"]


@pytest.mark.parametrize("recipe", config.names())
def test_an_epoch_has_the_numbers_of_a_cpu(train: Run, device: str, row: Row, recipe: str) -> None:
    expected = last(train(recipe, "reference", "cpu", "--precision", "float32"))
    for precision, (loss, accuracy) in TOLERANCES.items():
        run = train(recipe, precision, device, "--precision", precision)
        found = last(run)
        assert ("GPU" if device != "cpu" else "CPU") in used_on(run)
        assert precision in used_on(run)
        row(
            f"{recipe}, {precision}",
            val_loss=round(found["val_loss"], 4),
            val_accuracy=round(found["val_accuracy"], 4),
            cpu_val_loss=round(expected["val_loss"], 4),
            cpu_val_accuracy=round(expected["val_accuracy"], 4),
        )
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=loss)
        assert 100 * found["val_accuracy"] == pytest.approx(100 * expected["val_accuracy"], abs=accuracy)


def test_the_precision_of_the_device(fmnist: Command, place: dict[str, str], device: str) -> None:
    chosen = fmnist("devices", "--devices", device, **place).stdout.splitlines()[-1]
    assert device == "cpu" or "mixed_" in chosen


@pytest.mark.alone
@pytest.mark.parametrize("recipe", config.names())
def test_speed(train: Run, device: str, row: Row, recipe: str) -> None:
    run = train(recipe, "speed", device, "--set", "training.epochs=5", "--set", "data.train_limit=54000")
    history = json.loads((run / "history.json").read_text())
    seconds = history["history"]["seconds"]
    row(
        f"{recipe}, speed",
        images_per_second=round(history["images_per_second"]),
        first_epoch=round(seconds[0], 2),
        devices=used_on(run),
    )
    assert statistics.median(seconds[1:]) < seconds[0]


def test_two_workers_share_a_gpu_and_leave_memory(
    tmp_path: Path, start: Start, place: dict[str, str], device: str, row: Row
) -> None:
    words = ("tune", "--recipe", "smoke", "--trials", "6", "--workers", "2", "--run", tmp_path / "run")
    most: dict[str, int] = {}
    over = threading.Event()

    def watch() -> None:
        asked = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
        while not over.wait(0.2):
            for line in subprocess.run(asked, capture_output=True, text=True).stdout.splitlines():
                pid, _, memory = line.partition(", ")
                # A container does not see the processes' memory.
                most[pid] = max(most.get(pid, 0), int(memory) if memory.isdigit() else 0)

    watcher = threading.Thread(target=watch)
    if device != "cpu":
        watcher.start()
    try:
        process = start(tmp_path, *words, "--devices", "auto" if device != "cpu" else "cpu", **place)
        end(process, 0)
    finally:
        over.set()
        if device != "cpu":
            watcher.join()
    trials = read_trials(tmp_path / "run" / "trials.csv")
    assert {trial["status"] for trial in trials} == {"COMPLETED"}
    assert {trial["worker"] for trial in trials} == {"worker-0", "worker-1"}
    row("two workers on one device", processes=len(most), most_mib=max(most.values(), default=0))
    assert all(memory < MEMORY for memory in most.values())


def test_an_interrupted_training_goes_on(fmnist: Command, place: dict[str, str], device: str, tmp_path: Path) -> None:
    for run in "whole", "interrupted":
        words = ("train", *LONG, "--devices", device, "--run", tmp_path / run)
        if run == "interrupted":
            fmnist(*words, prepare=functools.partial(signal_at, "epoch  5/30", signal.SIGTERM), code=75, **place)
        said = fmnist(*words, **place).stderr
    assert "going on after epoch" in said
    whole, interrupted = (last(tmp_path / run) for run in ("whole", "interrupted"))
    # Sums on a GPU may come in another order each time.
    assert interrupted["val_loss"] == pytest.approx(whole["val_loss"], rel=0.02 if device != "cpu" else 0)


def test_a_container_sees_the_gpu(device: str, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    # These tests see no GPU otherwise.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    if not (shutil.which("podman") or shutil.which("docker")):
        pytest.skip("this machine has no container engine")
    engine = engines.choose("podman" if shutil.which("podman") else "docker")
    if device == "cpu" or not engine.gpus:
        pytest.skip(f"{engine.name} gives containers no GPU")
    make = ("make", "devices", f"ENGINE={engine.name}")
    subprocess.run(("make", "image", f"ENGINE={engine.name}", "ACCELERATOR=cuda"), check=True)
    said = subprocess.run(make, check=True, capture_output=True, text=True).stdout
    row("container", devices=said.splitlines()[-1])
    assert "chosen: 1 GPU" in said
