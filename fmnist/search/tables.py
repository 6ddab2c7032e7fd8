"""What a search has found, for people and for the next job: trials.csv and best.json."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.rundir import RunDir, atomic_write, write_json
from fmnist.search import space

Row = dict[str, Any]
Best = dict[str, Any]

SECONDS = "seconds"
"""The metric by which a worker reports the time of each epoch."""


def rows(oracle: keras_tuner.Oracle, workers: Mapping[str, str]) -> list[Row]:
    """One row a trial, oldest first: what became of it, then each hyperparameter (None where it was not active)."""
    names = dict.fromkeys(hp.name for hp in oracle.hyperparameters.space)
    for trial in oracle.trials.values():
        names |= dict.fromkeys(trial.hyperparameters.values)
    return [
        {
            "trial": trial.trial_id,
            "status": trial.status,
            "score": trial.score,
            "epochs": len(_history(trial, oracle.objective.name)),
            "seconds": round(sum(seen.mean() for seen in _history(trial, SECONDS)), 2),
            "worker": workers.get(trial.trial_id, ""),
            "message": trial.message,
            **{name: trial.hyperparameters.values.get(name) for name in names},
        }
        for trial in oracle.trials.values()
    ]


def best(oracle: keras_tuner.Oracle) -> Best | None:
    """The trial with the best epoch; of equals the oldest. None if no trial has completed."""
    for trial in oracle.get_best_trials(1):
        if trial.status == TrialStatus.COMPLETED:
            return {
                "trial": trial.trial_id,
                "objective": oracle.objective.name,
                "score": float(trial.score),
                "epoch": trial.best_step,
                "values": space.values(trial.hyperparameters),
            }
    return None


def write(run: RunDir, oracle: keras_tuner.Oracle, workers: Mapping[str, str]) -> None:
    """Bring both files up to date. There is no best.json before a trial has completed."""
    table = rows(oracle, workers)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    with atomic_write(run.trials) as file:
        file.write(text.getvalue().encode())
    if found := best(oracle):
        write_json(run.best, found)


def _history(trial: Trial, metric: str) -> list[Any]:
    return trial.metrics.get_history(metric) if trial.metrics.exists(metric) else []
