"""The dense-layer core: a configuration becomes a Keras model of stock layers; its forward pass in a training step."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from fmnist.errors import BadInput, explain
from fmnist.files import open_regular
from fmnist.progress import Advance
from fmnist.schema import CLASSES, IMAGE_SHAPE, ModelConfig

_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]

_PREDICTION_BATCH = 2000
# What versions of Keras after 3.0 write of layers, though it is at its default; the older ones refuse it.
_LATER = {"optional", "quantization_config", "renorm", "renorm_clipping", "renorm_momentum"}


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


class Step(NamedTuple):
    """What a training step knows beyond its images.

    weights: float32 [rows, 1], 1 for a real row and 0 for one that only pads the batch.
    seed: int32 [2], different in every step and on every replica.
    dropout_rates: float32 [hidden layers], a variable rather than constants: trials of one shape share one program.
    algorithm: of the random numbers, a name that `tf.random.stateless_uniform` takes.
    """

    weights: tf.Tensor
    seed: tf.Tensor
    dropout_rates: tf.Tensor
    algorithm: str


def forward(model: keras.Model, images: tf.Tensor, step: Step) -> tf.Tensor:
    """The forward pass of a training step: float32 logits [rows, 10]; updates the moving statistics.

    It differs from `model(images, training=True)` in what stock layers cannot do. Batch normalisation counts the real
    rows of a padded batch, on all replicas together. Dropout draws its mask from the step's own seed, so that an
    interrupted training repeats it, and cheaply: Keras's own makes a whole epoch under XLA on CPU ten times slower.
    """
    values = images
    hidden = 0
    for operation in model.operations[1:]:
        if isinstance(operation, layers.BatchNormalization):
            values = _batch_normalization(operation, values, step.weights)
        elif isinstance(operation, layers.Dropout):
            values = _dropout(values, step.dropout_rates[hidden - 1], step.seed + [0, hidden], step.algorithm)
        else:
            values = operation(values)
            hidden += isinstance(operation, layers.Dense) and operation.trainable
    return values


def _dropout(values: tf.Tensor, rate: tf.Tensor, seed: tf.Tensor, algorithm: str) -> tf.Tensor:
    """Inverted dropout (Srivastava et al. 2014)."""
    uniform = tf.random.stateless_uniform(tf.shape(values), seed, alg=algorithm)
    scale = tf.cast(1 / (1 - rate), values.dtype)
    return tf.where(uniform >= rate, values * scale, tf.zeros_like(values))


def _batch_normalization(layer: layers.BatchNormalization, values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Batch normalisation (Ioffe and Szegedy 2015) by float32 statistics, with the layer's own variables."""
    inputs = tf.cast(values, tf.float32)
    count = _over_replicas(tf.reduce_sum(weights))
    mean = _over_replicas(tf.reduce_sum(inputs * weights, axis=0)) / count
    centered = inputs - mean
    variance = _over_replicas(tf.reduce_sum(tf.square(centered) * weights, axis=0)) / count
    for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + batch * (1 - layer.momentum))
    scale = tf.math.rsqrt(variance + layer.epsilon) * layer.gamma
    return tf.cast(centered * scale + layer.beta, values.dtype)


def _over_replicas(value: tf.Tensor) -> tf.Tensor:
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)


def save(model: keras.Model, path: str) -> None:
    """Write a final model to a `.keras` file that plain Keras loads, in any version from 3.0 on."""
    model.save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = json.dumps(_plain(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def _plain(part: Any) -> Any:
    """A part of a model's configuration as Keras 3.0 spells it."""
    if isinstance(part, list):
        return [_plain(element) for element in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "DTypePolicy":
        return part["config"]["name"]
    if part.get("class_name") == "Functional":
        # One input and one output; later versions leave out the list of one.
        ends = {end: [part["config"][end]] for end in ("input_layers", "output_layers")}
        part = part | {"config": part["config"] | ends}
    # How weights began is spelled in many ways, and has no meaning once they are there.
    return {
        name: _plain(value) for name, value in part.items() if name not in _LATER and not name.endswith("_initializer")
    }


def load(path: Path) -> keras.Model:
    """Load a final model: uint8 [n, 28, 28] in, logits [n, 10] out.

    Raises:
        BadInput: it is missing, damaged or of another shape.
    """
    try:
        with open_regular(path) as file:
            is_zip = zipfile.is_zipfile(file)
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; run `fmnist train` first") from error
    except OSError as error:
        raise BadInput(explain(error)) from error
    # A GPU multiplies float32 in the shorter TensorFloat-32 by default; a prediction must not depend on the device.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # Keras would call a truncated file "not found".
    if not is_zip:
        raise BadInput(f"{path} is truncated, or not a Keras model; remove it and run `fmnist train` again")
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = tuple(model.input_shape), tuple(model.output_shape)
    except Exception as error:  # a damaged file raises whatever its zip, JSON or HDF5 part meets
        if line := explain(error):
            raise BadInput(line) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path} cannot be loaded ({reason}); remove it and run `fmnist train` again") from error
    if isinstance(model, keras.Sequential):
        # It alone does not tell its operations.
        model = keras.Model(model.inputs, model.outputs)
    expected = (None, *IMAGE_SHAPE), (None, CLASSES)
    if shapes != expected:
        raise BadInput(
            f"{path} is another kind of model: {shapes[0]} to {shapes[1]}, not {expected[0]} to {expected[1]}"
        )
    return model


def logits(model: keras.Model, images: np.ndarray, advance: Advance = lambda _: None) -> np.ndarray:
    """What a final model says of images, uint8 [n, 28, 28]: float32 [n, 10].

    Raises:
        BadInput: it says something that is not a finite number.
    """
    ended = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda _batch, logs: advance(len(logs["outputs"])))
    said = np.asarray(model.predict(images, batch_size=_PREDICTION_BATCH, verbose=0, callbacks=[ended]), np.float32)
    if not np.isfinite(said).all():
        raise BadInput("the model's outputs are not finite numbers; run `fmnist train` again, with other settings")
    return said
