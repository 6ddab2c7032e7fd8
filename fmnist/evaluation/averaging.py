"""Average the probabilities of finished models: over views of an image, and over several models."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fmnist.progress import Advance
from fmnist.recipe.schema import CLASSES, TrainingConfig

if TYPE_CHECKING:
    import keras

_SHIFTS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
VIEWS = 2 * len(_SHIFTS)


def views(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images and then their mirror images, each in place and shifted by a pixel up, down, left and right.

    Pixels that move in are 0.

    Args:
        images: uint8 [n, height, width].

    Yields:
        VIEWS arrays of that shape and dtype.
    """
    height, width = images.shape[1:]
    for mirrored in (images, images[:, :, ::-1]):
        padded = np.pad(mirrored, ((0, 0), (1, 1), (1, 1)))
        for down, right in _SHIFTS:
            yield padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def helps(training: TrainingConfig) -> bool:
    """Whether a model was trained on such views; one that was not is worse at them than at the image alone."""
    return training.augment.flip and max(training.augment.shift, training.augment.deform) > 0


def probabilities(
    models: "Sequence[keras.Model]", images: np.ndarray, *, tta: bool = False, advance: Advance = lambda _: None
) -> np.ndarray:
    """Return the mean of the models' softmax probabilities, float64 [n, 10].

    They are float64, because scikit-learn's log_loss clips probabilities at the resolution of their dtype.

    Args:
        models: as `inference.load` returns them.
        images: uint8 [n, 28, 28].
        tta: whether each model sees all `views` of an image (test-time augmentation) rather than the image alone.
        advance: called with the number of images after each batch of each view and model.

    Raises:
        BadInput: a model's logit is not a finite number.
    """
    from scipy.special import softmax

    from fmnist.network.inference import logits

    shown = list(views(images)) if tta else [images]
    total = np.zeros((len(images), CLASSES))
    for model in models:
        for view in shown:
            total += softmax(logits(model, view, advance).astype(np.float64), axis=1)
    return total / (len(models) * len(shown))
