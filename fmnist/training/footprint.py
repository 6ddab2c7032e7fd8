"""Refuse trainings that certainly need more memory than there is."""

import math
from itertools import pairwise

from fmnist.errors import BadInput
from fmnist.memory import available
from fmnist.recipe.schema import CLASSES, IMAGE_SHAPE, ModelConfig, TrainingConfig

_FLOAT, _HALF = 4, 2  # bytes
# How many variables each Keras optimizer keeps for each weight.
_SLOTS = {"sgd": 0, "adam": 2, "adagrad": 1, "nadam": 2, "adadelta": 2, "rmsprop": 1}
_PIXELS = math.prod(IMAGE_SHAPE)


class TooLarge(BadInput):
    """A training needs more memory than there is."""


def check(model: ModelConfig, training: TrainingConfig, images: int, replicas: int = 1) -> None:
    """Refuse a training on processors that certainly needs more memory than there is, before TensorFlow dies of it.

    The estimate is a lower bound: the initial weights; on each replica the weights, the optimizer's variables and the
    gradients; the activations of a batch; the images.

    Args:
        images: how many images the training data holds.
        replicas: how many devices train.

    Raises:
        TooLarge: the training needs more memory than there is.
    """
    widths = [_PIXELS, *model.hidden, CLASSES]
    weights = sum(below * above for below, above in pairwise(widths))
    copies = 2 + _SLOTS[training.optimizer] + (training.ema_momentum is not None)
    activations = min(training.batch_size, images) * sum(widths)
    needed = _FLOAT * weights * (1 + copies * replicas) + _HALF * activations + images * _PIXELS * replicas
    if needed > (there := available()):
        raise TooLarge(
            f"model.hidden {_layers(model.hidden)} with training.batch_size {training.batch_size} needs "
            f"{needed / 2**30:,.1f} GiB of memory at least, and there are {there / 2**30:,.1f} GiB; "
            "choose fewer units or a smaller batch, or a larger machine"
        )


def _layers(units: tuple[int, ...]) -> str:
    """Return the units of the layers as text, such as 512-256-50, shortened after six layers."""
    return "-".join(map(str, units[:6])) + "-..." * (len(units) > 6)
