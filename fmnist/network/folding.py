"""Fold a finished model into a smaller one that computes the same function."""

from typing import Any

import keras
import numpy as np

from fmnist.network.build import chain


def folded(model: keras.Model) -> keras.Model:
    """Return a model of the same function in which linear layers that follow each other are one dense layer.

    These are whitening, dense layers and batch normalisation. The result is smaller and faster, and once quantised to
    8-bit integers it has no large numbers to subtract from each other. What is before a normalisation of local contrast
    stays as it is.

    Args:
        model: as `build.build` makes it.
    """
    inputs = values = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="image")
    before, operations = chain(model)
    if before:
        values = before(inputs)
    linear: tuple[np.ndarray, np.ndarray] | None = None  # float64 kernel and bias of what is still to be applied

    def applied() -> Any:
        if linear is None:
            return values
        layer = keras.layers.Dense(linear[0].shape[1])
        result = layer(values)
        layer.set_weights(linear)
        return result

    for operation in operations:
        if isinstance(operation, keras.layers.Dense):
            kernel = operation.kernel.numpy().astype(np.float64)
            bias = operation.bias.numpy().astype(np.float64) if operation.use_bias else 0.0
            below = linear or (np.eye(len(kernel)), np.zeros(len(kernel)))
            linear = below[0] @ kernel, below[1] @ kernel + bias
        elif isinstance(operation, keras.layers.BatchNormalization) and linear:
            gamma, beta, mean, variance = (weights.astype(np.float64) for weights in operation.get_weights())
            scale = gamma / np.sqrt(variance + operation.epsilon)
            linear = linear[0] * scale, (linear[1] - mean) * scale + beta
        elif not isinstance(operation, keras.layers.Dropout):
            values, linear = type(operation).from_config(operation.get_config())(applied()), None
    return keras.Model(inputs, applied())
