"""The search's figures: what a chief costs, how busy it keeps its workers, and the loop around the training."""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import searching
from searching import process, recipe, until

from fmnist import config
from fmnist.rundir import RunDir
from fmnist.search import client
from fmnist.search.roles import Role, read_notice
from fmnist.search.worker import Report, RunTrial, TrialRequest
from fmnist.signals import Stop

WORKERS = 64
TRIALS_EACH = 4
EPOCHS, EPOCH_SECONDS = 10, 1.0


def processor_seconds(pid: int) -> float:
    """What a process has used of all processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def many_workers(folder: Path) -> dict[str, float]:
    """Threads over real gRPC, whose trials of ten seconds only sleep and report."""
    of = recipe(trials=WORKERS * TRIALS_EACH, epochs=EPOCHS)
    run = RunDir(folder / "run")
    chief = process(searching.chief, run.path, of)
    until(lambda: (notice := read_notice(run)) and notice.address)
    assert chief.pid
    epochs, present = [0] * WORKERS, [0.0] * WORKERS

    def train(number: int) -> RunTrial:
        def run_trial(trial: TrialRequest, report: Report) -> None:
            for epoch in range(trial.epochs):
                time.sleep(EPOCH_SECONDS)
                epochs[number] += 1
                report(epoch, {"val_accuracy": 0.5, "val_loss": 0.5, "loss": 0.5, "accuracy": 0.5})

        return run_trial

    def work(number: int) -> None:
        # Real workers do not report in step.
        time.sleep(EPOCH_SECONDS * number / WORKERS)
        start = time.perf_counter()
        client.join(run, of, Role(f"worker-{number}"), train(number), Stop())
        present[number] = time.perf_counter() - start

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    used, begin = processor_seconds(chief.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    while (notice := read_notice(run)) and notice.address:
        time.sleep(0.01)
        used_last = processor_seconds(chief.pid)
    end = time.perf_counter()
    _join(chief)
    for thread in threads:
        thread.join()
    return {
        "busy": EPOCH_SECONDS * sum(epochs) / sum(present),
        "chief": (used_last - used) / (end - begin),
        "end": time.perf_counter() - end,
    }


def _join(one: BaseProcess) -> None:
    one.join(10)
    assert one.exitcode == 0


def _search_recipe(trials: int, epochs: int) -> config.Recipe:
    overrides = ["search.oracle=random", f"search.trials={trials}", f"search.epochs={epochs}"]
    return config.load("tuned-mlp", overrides)


def our_search(folder: Path, of: config.Recipe) -> tuple[float, float]:
    """Seconds of a whole search in this process, data and imports apart, and of its epochs alone."""
    from fmnist import tune
    from fmnist.devices import choose
    from fmnist.fit import FitResult, Trainer

    begin = 0.0
    epochs: list[float] = []

    class Timed(Trainer):
        def __init__(self, *args: Any) -> None:
            nonlocal begin
            super().__init__(*args)
            begin = time.perf_counter()

        def fit(self, *args: Any, **kwargs: Any) -> FitResult:
            result = super().fit(*args, **kwargs)
            epochs.extend(result.seconds)
            return result

    with mock.patch.object(tune, "Trainer", Timed):
        tune.tune(RunDir(folder), of, 0, None, choose(), Stop())
    return time.perf_counter() - begin, sum(epochs)


def stock_search(folder: Path, of: config.Recipe) -> float:
    """Seconds of a search over the same trials by Keras Tuner and `model.fit`, data and imports apart."""
    import keras
    import keras_tuner

    from fmnist import data, model
    from fmnist.search import space

    assert of.search
    assert of.training.early_stopping

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        chosen = config.replace(of, space.values(hp))
        built = model.build(chosen.model)
        optimizer = keras.optimizers.get(chosen.training.optimizer)
        optimizer.learning_rate = chosen.training.learning_rate
        optimizer.weight_decay = chosen.training.weight_decay
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        built.compile(optimizer, loss, metrics=["accuracy"])
        return built

    tuner = keras_tuner.RandomSearch(
        build,
        objective=keras_tuner.Objective(of.search.objective, "max"),
        hyperparameters=space.hyperparameters(of),
        seed=1,  # as fmnist.search.oracles
        max_trials=of.search.trials,
        directory=folder,
    )
    loaded = data.load_train(None, of.data)
    begin = time.perf_counter()
    tuner.search(
        loaded.train.images,
        loaded.train.labels,
        batch_size=of.training.batch_size,
        epochs=of.search.epochs,
        validation_data=(loaded.validation.images, loaded.validation.labels),
        callbacks=[keras.callbacks.EarlyStopping(of.training.early_stopping.monitor, patience=5)],
        verbose=0,
    )
    return time.perf_counter() - begin


def trials_a_minute(folder: Path, of: config.Recipe, workers: int) -> float:
    """By `fmnist tune` on as many processors as workers, from the first trial's start to the end of the search."""
    settings = of.search
    assert settings
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:workers]))
    keys = (f"search.{key}={getattr(settings, key)}" for key in ("oracle", "trials", "epochs"))
    options = [argument for key in keys for argument in ("--set", key)]
    command = [sys.executable, "-m", "fmnist", "tune", "--devices", "cpu", "--recipe", of.name, *options]
    run = RunDir(folder)
    with subprocess.Popen(
        ["taskset", "--cpu-list", cores, *command, "--run", folder, "--workers", str(workers)],
        stderr=subprocess.DEVNULL,
    ) as job:
        until(run.trials.exists, 300)
        begin = time.perf_counter()
        until(lambda: "RUNNING" not in run.trials.read_text() and _ended(run) == settings.trials, 3600)
        end = time.perf_counter()
    assert job.returncode == 0
    return settings.trials / (end - begin) * 60


def _ended(run: RunDir) -> int:
    return sum("COMPLETED" in line for line in run.trials.read_text().splitlines())


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a call in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *args).result()


def main() -> None:
    """Print the figures beside what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4, help="of the real searches")
    parser.add_argument("--epochs", type=int, default=5, help="of each of those")
    options = parser.parse_args()
    of = _search_recipe(options.trials, options.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = many_workers(folder)
        print(f"{WORKERS} simulated workers, {WORKERS * TRIALS_EACH} trials of {EPOCHS * EPOCH_SECONDS:.0f} s")
        print(f"  workers busy                   {found['busy']:7.1%}   to reach: >= 95%")
        print(f"  chief, of one processor        {found['chief']:7.1%}   to reach: <= 25%")
        print(f"  chief's end                    {found['end']:7.2f} s to reach: <= 2 s")
        print(f"{of.name}, {options.trials} trials of {options.epochs} epochs")
        ours, epochs = _alone(our_search, folder / "ours", of)
        print(f"  time around the training       {ours / epochs - 1:7.1%}   to reach: <= 5%", flush=True)
        stock = _alone(stock_search, folder / "stock", of)
        print(f"  stock Keras Tuner / this       {stock / ours:7.2f}   to reach: >= 3 ({stock:.1f} s, {ours:.1f} s)")
        one, two = (trials_a_minute(folder / f"{count}-workers", of, count) for count in (1, 2))
        print(f"  2 workers, 2 cores / 1, 1 core {two / one:7.2f}   to reach: >= 1.8 ({two:.1f}, {one:.1f} a minute)")


if __name__ == "__main__":
    main()
