"""Write the results of a search for people and for the next job: trials.csv and best.json."""

import csv
import io
from collections.abc import Iterable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.files import write_json, write_text
from fmnist.run.folder import RunDir
from fmnist.search import space
from fmnist.search.reports import SECONDS

Row = dict[str, Any]
Best = dict[str, Any]

_ROW = ("trial", "status", "score", "epochs", "seconds", "worker", "message")


def row(trial: Trial, objective: str, worker: str) -> Row:
    """Return a trial's row of the table: its status and results, then its hyperparameters."""
    return {
        "trial": trial.trial_id,
        "status": trial.status,
        "score": trial.score,
        "epochs": len(_history(trial, objective)),
        "seconds": round(sum(seen.mean() for seen in _history(trial, SECONDS)), 2),
        "worker": worker,
        "message": trial.message,
        **trial.hyperparameters.values,
    }


def best(oracle: keras_tuner.Oracle) -> Best | None:
    """Return the trial with the best epoch, the oldest of equals; None if no trial has completed."""
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


def write(run: RunDir, oracle: keras_tuner.Oracle, rows: Iterable[Row]) -> None:
    """Update both files, best.json first: it is valid beside any version of trials.csv.

    There is no best.json before a trial has completed. In trials.csv a hyperparameter that a trial does not have (such
    as the units of a layer that it lacks) is empty.
    """
    table = list(rows)
    columns = dict.fromkeys([*_ROW, *(hp.name for hp in oracle.hyperparameters.space)])
    for one in table:
        columns |= dict.fromkeys(one)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns))
    writer.writeheader()
    writer.writerows(table)
    if found := best(oracle):
        write_json(run.best, found)
    write_text(run.trials, text.getvalue())


def _history(trial: Trial, metric: str) -> list[Any]:
    return trial.metrics.get_history(metric) if trial.metrics.exists(metric) else []
