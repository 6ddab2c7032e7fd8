"""The forward pass of a training step."""

from typing import NamedTuple

import keras
import tensorflow as tf
from keras import layers


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
