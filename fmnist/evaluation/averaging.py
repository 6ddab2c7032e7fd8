"""Means of finished models' probabilities: over views of an image, and over several models."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fmnist.progress import Advance

if TYPE_CHECKING:
    import keras

_SHIFTS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
VIEWS = 2 * len(_SHIFTS)


def views(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images and then their mirror images, each in place and shifted by a pixel up, down, left and right.

    What moves in is 0. A model that was trained without flip and shift does worse on them than on the image alone.

    Args:
        images: uint8 [n, height, width].

    Returns:
        VIEWS arrays of that shape and type.
    """
    height, width = images.shape[1:]
    for mirrored in (images, images[:, :, ::-1]):
        padded = np.pad(mirrored, ((0, 0), (1, 1), (1, 1)))
        for down, right in _SHIFTS:
            yield padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def probabilities(
    models: "Sequence[keras.Model]", images: np.ndarray, *, tta: bool = False, advance: Advance = lambda _: None
) -> np.ndarray:
    """The mean of the models' softmax probabilities: float64 [n, 10], because log_loss clips at its type's resolution.

    Args:
        models: as `model.load` returns them.
        images: uint8 [n, 28, 28].
        tta: whether each model sees all `views` of an image (test-time augmentation) rather than the image alone.
        advance: told the number of images at each batch of each view and model.

    Raises:
        BadInput: a model says something that is not a finite number.
    """
    from scipy.special import softmax

    from fmnist.network.inference import logits
    from fmnist.recipe.schema import CLASSES

    shown = list(views(images)) if tta else [images]
    total = np.zeros((len(images), CLASSES))
    for model in models:
        for view in shown:
            total += softmax(logits(model, view, advance).astype(np.float64), axis=1)
    return total / (len(models) * len(shown))
