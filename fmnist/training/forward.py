"""Compute the forward pass of a training step."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import layers

from fmnist.network.build import chain


class Step(NamedTuple):
    """What a training step needs besides its images.

    weights: float32 [rows, 1], 1 for real rows, 0 for padding.
    total: float32 scalar, the real rows of the step on all replicas.
    seed: int32 [2], different in every step and on every replica.
    dropout_rates: float32 [hidden layers], a variable rather than constants, since trials of one shape share a program.
    algorithm: the random number generator, by a name that `tf.random.stateless_uniform` takes.
    gpu: whether XLA compiles the step for a GPU, where few kernels are worth more than few operations.
    """

    weights: tf.Tensor
    total: tf.Tensor
    seed: tf.Tensor
    dropout_rates: tf.Tensor
    algorithm: str
    gpu: bool


def forward(model: keras.Model, images: tf.Tensor, step: Step) -> tf.Tensor:
    """Compute the logits, float32 [rows, 10], of a training step, and update the moving statistics.

    This differs from `model(images, training=True)` in what stock layers cannot do. Batch normalisation counts only the
    real rows of a padded batch, over all replicas together. Dropout draws its mask from the step's own seed, so that an
    interrupted training repeats it. It is also fast: with Keras's own dropout, an epoch under XLA on CPUs takes ten
    times as long.

    Args:
        images: uint8 [rows, 28, 28].
    """
    fixed, operations = chain(model)
    values = fixed(images) if fixed else images
    hidden = 0
    for operation in operations:
        if isinstance(operation, layers.BatchNormalization):
            values = _batch_normalization(operation, values, step)
        elif isinstance(operation, layers.Dropout):
            values = _dropout(values, step.dropout_rates[hidden - 1], step._replace(seed=step.seed + [0, hidden]))
        else:
            values = operation(values)
            hidden += isinstance(operation, layers.Dense) and operation.trainable
    return values


def _dropout(values: tf.Tensor, rate: tf.Tensor, step: Step) -> tf.Tensor:
    """Apply inverted dropout (Srivastava et al. 2014) to values [rows, units], with `rate` a float32 scalar."""
    uniform = _uniform(values, step)
    scale = tf.cast(1 / (1 - rate), values.dtype)
    return tf.where(uniform >= rate, values * scale, tf.zeros_like(values))


def _uniform(values: tf.Tensor, step: Step) -> tf.Tensor:
    """Draw a number in [0, 1), float32, for each of the values [rows, units].

    ThreeFry makes two numbers at a time, and XLA puts them into two rows, which is a kernel of its own on a GPU. If
    `step.gpu`, each row computes both and takes its own. The numbers are the same, where the rows are even. A CPU
    would take a tenth longer for a step.
    """
    if not step.gpu:
        return tf.random.stateless_uniform(tf.shape(values), step.seed, alg=step.algorithm)
    rows, units = values.shape
    pairs = tf.random.stateless_uniform(
        [-(-rows // 2), 1, units], step.seed, minval=None, maxval=None, dtype=tf.uint64, alg=step.algorithm
    )
    halves = tf.cast(tf.bitwise.right_shift(pairs, tf.constant([[0], [32]], tf.uint64)), tf.uint32)
    # What `tf.random.stateless_uniform` makes of 32 bits.
    mantissas = tf.cast(tf.bitwise.right_shift(halves, tf.constant(9, tf.uint32)), tf.float32)
    return tf.reshape(mantissas * 2.0**-23, [-1, units])[:rows]


def _batch_normalization(layer: layers.BatchNormalization, values: tf.Tensor, step: Step) -> tf.Tensor:
    """Apply batch normalisation (Ioffe and Szegedy 2015) to values [rows, units], and update the layer's variables.

    The statistics are float32, over the real rows of all replicas.
    """
    inputs = tf.cast(values, tf.float32)
    several = tf.distribute.get_replica_context().num_replicas_in_sync > 1
    if step.gpu and not several:
        outputs, mean, variance = _in_few_kernels(layer, inputs, step)
    else:
        # One of several may have no real row in the last step.
        count = tf.maximum(tf.reduce_sum(step.weights), 1) if several else step.total
        mean = tf.reduce_sum(inputs * step.weights, axis=0) / count
        centered = inputs - mean
        squares = tf.reduce_sum(tf.square(centered) * step.weights, axis=0)
        if several:
            mean, squares = _over_replicas(mean, squares, step)
            centered = inputs - mean
        variance = squares / step.total
        outputs = centered * (tf.math.rsqrt(variance + layer.epsilon) * layer.gamma) + layer.beta
    for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + batch * (1 - layer.momentum))
    return tf.cast(outputs, values.dtype)


def _in_few_kernels(
    layer: layers.BatchNormalization, inputs: tf.Tensor, step: Step
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise a batch with two sums in one pass over it, and two for the gradient, which Ioffe and Szegedy derive.

    The sums are of differences from the moving mean, which the batch's mean is near: without that, the variance would
    suffer cancellation (Chan, Golub and LeVeque 1983).

    Args:
        inputs: float32 [rows, units].

    Returns:
        The outputs, float32 [rows, units]; the batch's mean and variance, float32 [units], which have no gradient.
    """
    near = tf.convert_to_tensor(layer.moving_mean)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalize(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        # With 0 in the rows of the padding, which neither the loss nor a gradient counts.
        differences = (inputs - near) * step.weights
        offset = tf.reduce_sum(differences, axis=0) / step.total
        squares = tf.reduce_sum(tf.square(differences), axis=0) / step.total
        variance = tf.nn.relu(squares - tf.square(offset))
        deviation = tf.math.rsqrt(variance + layer.epsilon)

        def gradient(of_outputs: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            of_beta = tf.reduce_sum(of_outputs, axis=0)
            of_gamma = deviation * (tf.reduce_sum(of_outputs * differences, axis=0) - offset * of_beta)
            shared = (of_beta + (differences - offset) * deviation * of_gamma) * step.weights / step.total
            return gamma * deviation * (of_outputs - shared), of_gamma, of_beta

        return ((differences - offset) * (deviation * gamma) + beta, near + offset, variance), gradient

    return normalize(inputs, tf.convert_to_tensor(layer.gamma), tf.convert_to_tensor(layer.beta))


def _over_replicas(mean: tf.Tensor, squares: tf.Tensor, step: Step) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean, and the sum of the squared differences from it, over the real rows of all replicas.

    The replicas tell each other theirs in one collective operation, and combine them as Chan, Golub and LeVeque (1979)
    do, without the cancellation that sums of squares suffer.

    Args:
        mean, squares: float32 [units], over the replica's own rows.
    """
    replica = tf.distribute.get_replica_context()
    count = tf.fill(tf.shape(mean), tf.reduce_sum(step.weights))
    # Each replica fills its own row, so that the sum over the replicas holds them all.
    row = tf.one_hot(replica.replica_id_in_sync_group, replica.num_replicas_in_sync)[:, tf.newaxis, tf.newaxis]
    told = replica.all_reduce(tf.distribute.ReduceOp.SUM, row * tf.stack([count, mean, squares]))
    counts, means, all_squares = tf.unstack(told, axis=1)
    common = tf.reduce_sum(counts * means, axis=0) / step.total
    return common, tf.reduce_sum(all_squares + counts * tf.square(means - common), axis=0)
