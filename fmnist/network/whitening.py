"""Whiten images by a fixed linear map that makes pixels uncorrelated and their variances similar.

This is ZCA (Bell and Sejnowski 1997) with damping, computed from the training images as by Krizhevsky (2009, appendix
A). In these coordinates, the first dense layer that learns finds fine differences as fast as silhouettes, which vary a
hundred times as much.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

# `components` needs no TensorFlow, which takes seconds to import.
if TYPE_CHECKING:
    import keras

# NumPy's linear algebra. It is looked for here, once: a look while another thread imports a module may never end.
_libraries = ThreadpoolController()


class Components(NamedTuple):
    """The principal components of images whose pixels are scaled to 0..1.

    mean: float32 [pixels].
    variances: float32 [pixels], the variance along each component.
    vectors: float32 [pixels, pixels], one column for each component.
    """

    mean: np.ndarray
    variances: np.ndarray
    vectors: np.ndarray


def components(images: np.ndarray, square_root: bool = False) -> Components:
    """Return the components of images, uint8 [n, height, width], or of their pixels' square roots.

    The computation has one thread: the number of threads changes how linear algebra rounds, and depends on the machine.
    """
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    if square_root:
        pixels = np.sqrt(pixels)
    mean = pixels.mean(axis=0)
    pixels -= mean
    with _libraries.limit(limits=1):
        variances, vectors = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    return Components(mean, np.maximum(variances, 0), vectors)


def apply(model: "keras.Model", components: Components, damping: float) -> None:
    """Set the model's first dense layer to map each component of variance v to the variance v / (v + damping ** 2)."""
    import keras

    mean, variances, vectors = components
    with _libraries.limit(limits=1):
        kernel = vectors / np.sqrt(variances + damping**2) @ vectors.T
        bias = -mean @ kernel
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    layer.set_weights([kernel, bias])
