"""The search's figures: what a chief costs, how busy it keeps its workers, and the loop around the training."""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from searching import until

from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir, read_trials
from fmnist.signals import Stop

from . import machine
from .output import options, publish
from .simulation import simulate, simulated
from .table import Figure, speedup

logger = logging.getLogger(__name__)


def our_search(folder: Path, of: Recipe) -> tuple[float, float]:
    """Seconds of a whole search in this process, data and imports apart, and of its epochs alone."""
    from fmnist.devices import request
    from fmnist.search import job as tune
    from fmnist.training.trainer import FitResult, Trainer

    begin = 0.0
    epochs: list[float] = []

    class Timed(Trainer):
        def __init__(self, *args: Any) -> None:
            nonlocal begin
            super().__init__(*args)
            begin = time.perf_counter()

        def fit(self, *args: Any, **kwargs: Any) -> FitResult:
            self.trained = 0
            result = super().fit(*args, **kwargs)
            # Not those that a promoted trial has from its parent.
            epochs.extend(result.seconds[len(result.seconds) - self.trained :])
            return result

        def _epoch(self, *args: Any) -> dict[str, float]:
            self.trained += 1
            return super()._epoch(*args)

    with mock.patch.object(tune, "Trainer", Timed):
        tune.tune(RunDir(folder), of, 0, None, request("cpu"), Stop())
    return time.perf_counter() - begin, sum(epochs)


def stock_search(folder: Path, of: Recipe) -> float:
    """Seconds of a search over the same trials by Keras Tuner and `model.fit`, data and imports apart."""
    import keras
    import keras_tuner

    from fmnist.data import dataset
    from fmnist.network.build import build
    from fmnist.search import space

    search, stopping = of.search, of.training.early_stopping
    assert search
    assert stopping

    def tuned(hp: keras_tuner.HyperParameters) -> keras.Model:
        chosen = config.replace(of, space.values(hp))
        built = build(chosen.model)
        training = chosen.training
        averaging = {"use_ema": training.ema_momentum is not None, "ema_momentum": training.ema_momentum or 0.99}
        settings = {"learning_rate": training.learning_rate, "weight_decay": training.weight_decay}
        optimizer = keras.optimizers.get({"class_name": training.optimizer, "config": settings | averaging})
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        built.compile(optimizer, loss, metrics=["accuracy"])
        return built

    settings = {
        "objective": keras_tuner.Objective(search.objective, "max"),
        "hyperparameters": space.hyperparameters(of),
        "seed": 1,  # as fmnist.search.oracles
        "directory": folder,
    }
    if search.oracle == "hyperband":
        tuner = keras_tuner.Hyperband(tuned, max_epochs=search.epochs, hyperband_iterations=search.trials, **settings)
        tuner.oracle.max_trials = search.trials
    else:
        tuner = keras_tuner.RandomSearch(tuned, max_trials=search.trials, **settings)
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.EarlyStopping(stopping.monitor, patience=stopping.patience)
    ]
    if of.training.ema_momentum is not None:
        callbacks.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    loaded = dataset.load_train(None, of.data)
    begin = time.perf_counter()
    tuner.search(
        loaded.train.images,
        loaded.train.labels,
        batch_size=of.training.batch_size,
        epochs=search.epochs,
        validation_data=(loaded.validation.images, loaded.validation.labels),
        callbacks=callbacks,
        verbose=0,
    )
    return time.perf_counter() - begin


def seconds_a_trial(folder: Path, of: Recipe, workers: int) -> float:
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
        until(lambda: [row["status"] for row in read_trials(run.trials)] == ["COMPLETED"] * settings.trials, 3600)
        end = time.perf_counter()
    assert job.returncode == 0
    return (end - begin) / settings.trials


def chief(folder: Path, of: Recipe, count: int) -> Iterator[Figure]:
    many = simulated("random", 4 * 64, epochs=10)
    outcomes = [simulate(folder / f"{n}-simulated", many, 64, epoch_seconds=1) for n in range(count)]
    case = "64 simulated workers, trials of 10 s"
    yield Figure("workers busy, of their time", case, ">= 0.95", values=tuple(one.busy for one in outcomes))
    yield Figure("chief, of one processor", case, "<= 0.25", values=tuple(one.chief for one in outcomes))
    yield Figure("chief's end after the last trial, s", case, "<= 2", values=tuple(one.end for one in outcomes))


def stock(folder: Path, of: Recipe, count: int) -> Iterator[Figure]:
    assert of.search
    if of.search.oracle == "asha":
        # Keras Tuner has none; both search by what comes closest.
        of = config.replace(of, {"search.oracle": "hyperband", "search.trials": 18})
    ours, epochs, theirs = [], [], []
    for n in range(count):
        seconds, trained = machine.alone(our_search, folder / f"{n}-ours", of)
        ours.append(seconds)
        epochs.append(trained)
        theirs.append(machine.alone(stock_search, folder / f"{n}-stock", of))
        logger.info("search: %.1f s, its epochs %.1f s, stock %.1f s", ours[-1], epochs[-1], theirs[-1])
    around = tuple(a / b - 1 for a, b in zip(ours, epochs, strict=True))
    yield Figure("time around the training, of it", _case(of), "<= 0.05", tuple(ours), tuple(epochs), around)
    ratio = speedup(ours, theirs)
    yield Figure("stock Keras Tuner's time over ours", _case(of), ">= 3", tuple(ours), tuple(theirs), ratio)


def workers(folder: Path, of: Recipe, count: int) -> Iterator[Figure]:
    pairs = []
    for n in range(count):
        pairs.append(tuple(seconds_a_trial(folder / f"{n}-{workers}-workers", of, workers) for workers in (2, 1)))
        logger.info("a trial: 2 workers %.1f s, 1 worker %.1f s", *pairs[-1])
    two, one = zip(*pairs, strict=True)
    yield Figure("trials a minute, 2 workers on 2 cores over 1 on 1", _case(of), ">= 1.85", two, one, speedup(two, one))


def _case(of: Recipe) -> str:
    assert of.search
    return f"{of.name}, {of.search.oracle}, {of.search.trials} trials of {of.search.epochs} epochs"


def main() -> None:
    parser = options("search", __doc__, pairs=5)
    measurements = {function.__name__: function for function in (chief, stock, workers)}
    parser.add_argument("--only", nargs="+", choices=measurements, default=list(measurements), help="what to measure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of tuned-mlp")
    arguments = parser.parse_args()
    of = config.load("tuned-mlp", arguments.set)
    here = machine.describe()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            figures += measurements[name](Path(folder), of, arguments.pairs)
    publish("search", here, figures, arguments.out)
