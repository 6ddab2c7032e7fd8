"""A finished model as a smaller one that says the same."""

from typing import Any

import keras
import numpy as np


def folded(model: keras.Model) -> keras.Model:
    """The same function with fewer layers: what is linear in a row, such as whitening, dense and normalising, is one.

    So it is smaller and faster, and 8-bit integers have no large numbers to subtract from each other.

    Args:
        model: as `model.build` makes it.
    """
    inputs = values = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    linear: tuple[np.ndarray, np.ndarray] | None = None  # kernel and bias, in float64, of what is still to be applied

    def applied() -> Any:
        if linear is None:
            return values
        layer = keras.layers.Dense(linear[0].shape[1])
        result = layer(values)
        layer.set_weights(linear)
        return result

    for operation in model.operations[1:]:
        if isinstance(operation, keras.layers.Dense):
            kernel = operation.kernel.numpy().astype(np.float64)
            bias = operation.bias.numpy().astype(np.float64) if operation.use_bias else 0.0
            before = linear or (np.eye(len(kernel)), np.zeros(len(kernel)))
            linear = before[0] @ kernel, before[1] @ kernel + bias
        elif isinstance(operation, keras.layers.BatchNormalization) and linear:
            gamma, beta, mean, variance = (weights.astype(np.float64) for weights in operation.get_weights())
            scale = gamma / np.sqrt(variance + operation.epsilon)
            linear = linear[0] * scale, (linear[1] - mean) * scale + beta
        elif not isinstance(operation, keras.layers.Dropout):
            values, linear = type(operation).from_config(operation.get_config())(applied()), None
    return keras.Model(inputs, applied())
