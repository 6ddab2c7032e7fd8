"""What the chief does with one trial, and Keras Tuner does not."""

import functools
import math
from collections.abc import Mapping

import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.metrics_tracking import MetricsTracker, infer_metric_direction

from fmnist.search import tables

_direction = functools.cache(infer_metric_direction)


def unusable(trial: Trial, objective: str) -> str | None:
    """Why the trial has no score, if it has none."""
    if not trial.metrics.exists(objective) or not trial.metrics.get_history(objective):
        return f"it reported no {objective}"
    value = trial.metrics.get_best_value(objective)
    return None if math.isfinite(value) else f"{objective} is {value}"


def repeats(trial: Trial, metrics: Mapping[str, float], step: int) -> bool:
    """Whether the trial holds these metrics of this epoch already, but for the time it took."""
    known = {
        name: seen.value
        for name, history in trial.metrics.metrics.items()
        for seen in history.get_history()
        if seen.step == step and name != tables.SECONDS
    }
    return known == {name: [float(value)] for name, value in metrics.items() if name != tables.SECONDS}


def forget(trial: Trial, step: int) -> None:
    """Drop what was reported of epoch `step` and later ones."""
    if all(seen.step < step for history in trial.metrics.metrics.values() for seen in history.get_history()):
        return
    known = trial.metrics.get_config()
    for history in known["metrics"].values():
        history["observations"] = [seen for seen in history["observations"] if seen["step"] < step]
    trial.metrics = MetricsTracker.from_config(known)


def record(trial: Trial, metrics: Mapping[str, float], step: int, objective: keras_tuner.Objective) -> None:
    """Note the metrics of epoch `step`.

    As the oracle's own `update_trial`, which also looks for the best value of every metric, twice a report, and makes
    a Keras metric of each to learn its direction.
    """
    for name, value in metrics.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, objective.direction if name == objective.name else _direction(name))
        trial.metrics.metrics[name].update(float(value), step)


def copy(trial: Trial) -> Trial:
    """The trial for others to keep: its values without the space, which is the same for all."""
    values = keras_tuner.HyperParameters()
    values.values = dict(trial.hyperparameters.values)
    copy = Trial(values, trial.trial_id, trial.status, trial.message)
    copy.score, copy.best_step = trial.score, trial.best_step
    copy.metrics = MetricsTracker.from_config(trial.metrics.get_config())
    return copy
