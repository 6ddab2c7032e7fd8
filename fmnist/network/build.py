"""A configuration becomes a Keras model of stock layers."""

import keras
import numpy as np
from keras import layers

from fmnist.recipe.schema import CLASSES, IMAGE_SHAPE, ModelConfig

_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]


def build(config: ModelConfig, seed: int = 0, policy: str = "float32") -> keras.Model:
    """The model: uint8 [n, 28, 28] in, float32 logits [n, 10] out; `policy` is the Keras dtype policy between them.

    The same `config` and `seed` give the same initial weights, whatever was built before. Stock layers alone, so a
    saved model loads without this package.
    """
    initializer = type(keras.initializers.get(config.kernel_initializer))

    def dense(units: int, index: int, dtype: str, use_bias: bool = True) -> layers.Layer:
        return layers.Dense(
            units,
            use_bias=use_bias,
            # One seed a layer, and none that another run's seed would use.
            kernel_initializer=initializer(seed=1000 * seed + index),
            kernel_regularizer=keras.regularizers.L2(config.l2) if config.l2 else None,
            dtype=dtype,
        )

    # Whitening subtracts large numbers from each other, which half precision has rounded too much.
    pixels_policy = policy if config.whitening is None else "float32"
    images = keras.Input(IMAGE_SHAPE, dtype="uint8")
    values = layers.Rescaling(1 / 255, dtype=pixels_policy)(images)
    if config.square_root:
        values = keras.ops.sqrt(values)
    values = layers.Flatten(dtype=pixels_policy)(values)
    if config.whitening is not None:
        # What it holds comes from the training images: `whitening`.
        whitening = layers.Dense(_PIXELS, kernel_initializer="identity", trainable=False, dtype=pixels_policy)
        values = whitening(values)
    for index, (units, rate) in enumerate(zip(config.hidden, config.dropout_rates, strict=True)):
        # Batch normalisation takes out any bias before it and brings its own.
        layer = dense(units, index, policy, use_bias=not config.batch_normalization)
        values = layer(values)
        if index == 0 and config.receptive_field is not None:
            layer.kernel.assign(_localized(layer.kernel.numpy(), receptive_fields(units, config.receptive_field, seed)))
        if config.batch_normalization:
            values = layers.BatchNormalization(dtype=policy)(values)
        values = layers.Activation(config.activation, dtype=policy)(values)
        if rate:
            values = layers.Dropout(rate, dtype=policy)(values)
    return keras.Model(images, dense(CLASSES, len(config.hidden), "float32")(values))


def receptive_fields(units: int, size: float, seed: int) -> np.ndarray:
    """A window of its own for each of the first layer's units: float64 [pixels, units] in [0, 1], 1 at its centre.

    They are Gaussians around uniformly drawn pixels, their standard deviation, in pixels, between half and twice
    `size`. The same seed gives the same ones, larger or smaller with `size`.
    """
    random = np.random.default_rng([seed, _PIXELS])
    height, width = IMAGE_SHAPE
    top, left = random.uniform(0, [[height - 1], [width - 1]], (2, units))
    deviation = size * 2 ** random.uniform(-1, 1, units)
    rows, columns = np.mgrid[:height, :width].reshape(2, _PIXELS, 1)
    return np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (2 * deviation**2))


def _localized(kernel: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The first weights, [pixels, units], through each unit's window; they keep their norm, and may all grow."""
    seen = kernel * windows
    return (seen * np.linalg.norm(kernel, axis=0) / np.linalg.norm(seen, axis=0)).astype(np.float32)
