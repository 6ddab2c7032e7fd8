"""Whitening: a fixed linear map of the pixels that makes them uncorrelated and of like variance.

ZCA (Bell and Sejnowski 1997) with a damping, as Krizhevsky (2009, appendix A) computes it from the training images. In
these coordinates a first dense layer learns fine differences as fast as the silhouettes, which vary a hundred times as
much.
"""

from typing import NamedTuple

import keras
import numpy as np
from threadpoolctl import threadpool_limits


class Components(NamedTuple):
    """The principal components of images scaled to 0..1.

    mean: float32 [pixels].
    variances: float32 [pixels], of each component.
    vectors: float32 [pixels, pixels], a column a component.
    """

    mean: np.ndarray
    variances: np.ndarray
    vectors: np.ndarray


def components(images: np.ndarray, square_root: bool = False) -> Components:
    """Of images, uint8 [n, height, width], or of their pixels' square roots.

    In one thread: the number of threads changes how linear algebra rounds, and is the machine's, not the recipe's.
    """
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    if square_root:
        pixels = np.sqrt(pixels)
    mean = pixels.mean(axis=0)
    pixels -= mean
    with threadpool_limits(1):
        variances, vectors = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    return Components(mean, np.maximum(variances, 0), vectors)


def apply(model: keras.Model, components: Components, damping: float) -> None:
    """Make the model's first dense layer map each component to the variance v / (v + damping ** 2)."""
    mean, variances, vectors = components
    with threadpool_limits(1):
        kernel = vectors / np.sqrt(variances + damping**2) @ vectors.T
        bias = -mean @ kernel
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    layer.set_weights([kernel, bias])
