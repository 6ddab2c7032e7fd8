"""Record the metrics that a trial reports, epoch by epoch."""

from collections.abc import Mapping

import keras_tuner
from keras_tuner.engine.trial import Trial

from fmnist.search import stock

SECONDS = "seconds"
"""Name of the metric by which a worker reports the time of each epoch."""


def repeats(trial: Trial, metrics: Mapping[str, float], step: int) -> bool:
    """Tell whether the trial already has these metrics for this epoch, apart from its seconds."""
    known = {
        name: seen.value
        for name, history in trial.metrics.metrics.items()
        for seen in history.get_history()
        if seen.step == step and name != SECONDS
    }
    return known == {name: [float(value)] for name, value in metrics.items() if name != SECONDS}


def forget(trial: Trial, step: int) -> None:
    """Drop the reports of epoch `step` and of later ones."""
    if all(seen.step < step for history in trial.metrics.metrics.values() for seen in history.get_history()):
        return
    known = trial.metrics.get_config()
    for history in known["metrics"].values():
        history["observations"] = [seen for seen in history["observations"] if seen["step"] < step]
    trial.metrics = stock.MetricsTracker.from_config(known)


def record(trial: Trial, metrics: Mapping[str, float], step: int, objective: keras_tuner.Objective) -> None:
    """Record the metrics of epoch `step`.

    The oracle's own `update_trial` does the same, but is slower: with each report it looks twice for the best value of
    every metric, and makes a Keras metric of each to find its direction.
    """
    for name, value in metrics.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, objective.direction if name == objective.name else stock.direction(name))
        trial.metrics.metrics[name].update(float(value), step)
