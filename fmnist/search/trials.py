"""What the chief does with one trial, and Keras Tuner does not."""

import math
from collections.abc import Mapping

import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.metrics_tracking import MetricsTracker

from fmnist.search import tables


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


def copy(trial: Trial) -> Trial:
    """The trial for others to keep: its values without the space, which is the same for all."""
    values = keras_tuner.HyperParameters()
    values.values = dict(trial.hyperparameters.values)
    copy = Trial(values, trial.trial_id, trial.status, trial.message)
    copy.score, copy.best_step = trial.score, trial.best_step
    copy.metrics = MetricsTracker.from_config(trial.metrics.get_config())
    return copy
