"""What the training changes from one step, or epoch, to the next."""

import numpy as np

from fmnist.recipe.schema import TrainingConfig


def learning_rates(training: TrainingConfig, current: float, epoch: int, steps: int) -> np.ndarray:
    """Of each step of an epoch: float32 [steps]; `current` throughout, or the one-cycle schedule.

    That is Smith and Topin's (2018) in the form that is usual since: no second phase, and a cosine down to 0.
    """
    if not training.one_cycle:
        return np.full(steps, current, np.float32)
    warmup = training.one_cycle.warmup
    done = (epoch * steps + np.arange(1, steps + 1)) / (training.epochs * steps)
    rising = done / warmup if warmup else np.ones(steps)
    falling = (1 + np.cos(np.pi * (done - warmup) / (1 - warmup))) / 2
    return (training.learning_rate * np.where(done < warmup, rising, falling)).astype(np.float32)


def augments(training: TrainingConfig, epoch: int) -> bool:
    """Whether the images of an epoch are shifted, as `training.augment.until` says."""
    return epoch / training.epochs < training.augment.until
