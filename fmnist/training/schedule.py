"""Compute what a training changes from step to step and from epoch to epoch."""

import numpy as np

from fmnist.recipe.schema import TrainingConfig


def learning_rates(training: TrainingConfig, current: float, epoch: int, steps: int) -> np.ndarray:
    """Return the learning rate of each step of an epoch, float32 [steps]: `current`, or the one-cycle schedule.

    That is the schedule of Smith and Topin (2018) in its now usual form: no third phase, and a cosine down to 0.

    Args:
        epoch: counted from 0.
        steps: how many steps an epoch has.
    """
    if not training.one_cycle:
        return np.full(steps, current, np.float32)
    warmup = training.one_cycle.warmup
    done = (epoch * steps + np.arange(1, steps + 1)) / (training.epochs * steps)
    rising = done / warmup if warmup else np.ones(steps)
    falling = (1 + np.cos(np.pi * (done - warmup) / (1 - warmup))) / 2
    return (training.learning_rate * np.where(done < warmup, rising, falling)).astype(np.float32)


def augments(training: TrainingConfig, epoch: int) -> bool:
    """Return whether the images of an epoch, counted from 0, are shifted, as `training.augment.until` says."""
    return epoch / training.epochs < training.augment.until
