"""What the search's tests share: a small recipe, and trials whose score is a formula instead of a training."""

import csv
from pathlib import Path
from typing import Any

from fmnist import config
from fmnist.rundir import RunDir
from fmnist.search.chief import Chief
from fmnist.search.worker import Report, TrialRequest, work
from fmnist.signals import Stop

SPACE = {
    "model.hidden": {"layers": [1, 3], "units": [16, 32, 64]},
    "training.learning_rate": {"min": 1e-4, "max": 1e-1, "sampling": "log"},
    "training.optimizer": {"values": ["sgd", "adam"]},
}
SMALL_SPACE = {key: SPACE[key] for key in ("training.learning_rate", "training.optimizer")}
"""Two dimensions: after six random trials the Bayesian oracle makes its own."""


def recipe(oracle: str = "random", space: dict[str, Any] = SPACE, **search: Any) -> config.Recipe:
    settings = {"space": space, "oracle": oracle, "trials": 5, "epochs": 2, **search}
    return config.resolve({"name": "test", "description": "for tests", "search": settings}, "test")


class Runner:
    """A `RunTrial` whose best epoch is its last but one; remembers what it was asked for."""

    def __init__(self) -> None:
        self.requests: list[TrialRequest] = []

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        self.requests.append(trial)
        for epoch in range(trial.initial_epoch, trial.epochs):
            report(epoch, self.metrics(trial, epoch))

    def metrics(self, trial: TrialRequest, epoch: int) -> dict[str, float]:
        width = sum(trial.values.get("model.hidden", [0]))
        rate = trial.values.get("training.learning_rate", 0.0)
        accuracy = 0.5 + width / 1000 - rate - abs(epoch - (trial.epochs - 2)) / 100
        return {"val_accuracy": accuracy, "val_loss": 1 - accuracy}


def search(path: Path, of: config.Recipe, runner: Runner, seed: int = 0, worker: str = "tuner0") -> Chief:
    chief = Chief(RunDir(path), of, seed)
    work(chief, worker, runner, Stop())
    return chief


def table(path: Path) -> list[dict[str, str]]:
    """trials.csv, without what differs from run to run."""
    with RunDir(path).trials.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "worker")} for row in csv.DictReader(file)]
