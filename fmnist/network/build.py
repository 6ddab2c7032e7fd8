"""Build a Keras model of stock layers from a configuration."""

from typing import Any

import keras
import numpy as np
from keras import layers, tree

from fmnist.recipe.schema import CLASSES, IMAGE_SHAPE, ModelConfig

_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
# What is added to the mean square, so that areas without a contrast stay quiet.
_QUIET = 0.01


def build(config: ModelConfig, seed: int = 0, policy: str = "float32") -> keras.Model:
    """Build a model that maps images, uint8 [n, 28, 28], to logits, float32 [n, 10].

    The same `config` and `seed` give the same initial weights, whatever was built before. All layers are stock layers,
    so a saved model loads without this package.

    Args:
        policy: the Keras dtype policy of the layers before the output layer.
    """
    initializer = type(keras.initializers.get(config.kernel_initializer))

    def dense(units: int, index: int, dtype: str, use_bias: bool = True) -> layers.Layer:
        return layers.Dense(
            units,
            use_bias=use_bias,
            # A seed of its own for each layer, which no other run's seed leads to.
            kernel_initializer=initializer(seed=1000 * seed + index),
            kernel_regularizer=keras.regularizers.L2(config.l2) if config.l2 else None,
            dtype=dtype,
        )

    # Whitening subtracts large numbers from each other, and what it leaves is small where there is little contrast;
    # half precision would round away both.
    pixels_policy = policy if config.whitening is None and config.local_contrast is None else "float32"
    images = keras.Input(IMAGE_SHAPE, dtype="uint8")
    values = layers.Rescaling(1 / 255, dtype=pixels_policy)(images)
    if config.square_root:
        values = keras.ops.sqrt(values)
    values = layers.Flatten(dtype=pixels_policy)(values)
    if config.whitening is not None:
        # `whitening.apply` sets the weights from the training images.
        whitening = layers.Dense(_PIXELS, kernel_initializer="identity", trainable=False, dtype=pixels_policy)
        values = whitening(values)
    if config.local_contrast is not None:
        values = _normalized(values, config.local_contrast, pixels_policy)
    for index, (units, rate) in enumerate(zip(config.hidden, config.dropout_rates, strict=True)):
        # Batch normalisation cancels a bias before it, and adds its own.
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


def chain(model: keras.Model) -> tuple[keras.Model | None, list[Any]]:
    """Split a model after its last operation of several inputs; from there on each operation feeds the next.

    Returns:
        What comes before as a model, None if there is no such operation; and the operations from there on.
    """
    operations = model.operations
    joins = [index for index, operation in enumerate(operations) if len(tree.flatten(operation.input)) > 1]
    if not joins:
        return None, operations[1:]
    return keras.Model(model.input, operations[joins[-1]].output), operations[joins[-1] + 1 :]


def receptive_fields(units: int, size: float, seed: int) -> np.ndarray:
    """Draw a Gaussian window for each unit of the first layer: float64 [pixels, units] in [0, 1], 1 at the centre.

    Centres are uniform over the image. Standard deviations, in pixels, lie between half and twice `size`. The same seed
    gives the same centres, and the same standard deviations relative to `size`.
    """
    random = np.random.default_rng([seed, _PIXELS])
    height, width = IMAGE_SHAPE
    top, left = random.uniform(0, [[height - 1], [width - 1]], (2, units))
    deviation = size * 2 ** random.uniform(-1, 1, units)
    rows, columns = np.mgrid[:height, :width].reshape(2, _PIXELS, 1)
    return np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (2 * deviation**2))


def _normalized(values: keras.KerasTensor, size: float, policy: str) -> keras.KerasTensor:
    """Divide each of values [n, pixels] by the root of the mean square around it, weighted by a Gaussian window.

    This is the divisive part of local contrast normalisation (Jarrett et al. 2009). The window is applied along rows,
    then along columns, by fixed dense layers.

    Args:
        size: the standard deviation of the window, in pixels.
    """
    length, squares = IMAGE_SHAPE[0], keras.ops.square(values)
    places = np.arange(length)
    window = np.exp(-((places - places[:, np.newaxis]) ** 2) / (2 * size**2))
    squares = layers.Reshape(IMAGE_SHAPE, dtype=policy)(squares)
    for bias in (0.0, _QUIET):
        mean = layers.Dense(length, trainable=False, dtype=policy)
        squares = layers.Permute((2, 1), dtype=policy)(mean(squares))
        mean.set_weights([window / window.sum(axis=0), np.full(length, bias)])
    return values * keras.ops.rsqrt(layers.Flatten(dtype=policy)(squares))


def _localized(kernel: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Multiply initial weights [pixels, units] by the windows of that shape, and restore each unit's norm: float32."""
    seen = kernel * windows
    return (seen * np.linalg.norm(kernel, axis=0) / np.linalg.norm(seen, axis=0)).astype(np.float32)
