"""Make what changes the weights in a step: a Keras optimizer, and after it the L1 decay."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from fmnist.network.build import receptive_fields
from fmnist.recipe.schema import ModelConfig, TrainingConfig

_OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adagrad": keras.optimizers.Adagrad,
    "nadam": keras.optimizers.Nadam,
    "adadelta": keras.optimizers.Adadelta,
    "rmsprop": keras.optimizers.RMSprop,
}


class _LossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling where each replica has gradients of its own: all pass over a step in which one replica's overflow.

    Keras asks the first replica alone, as if the gradients were added up before.
    """

    def check_finite(self, grads: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return whether the gradients of all replicas are finite, bool scalar."""
        finite, replica = super().check_finite(grads), tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            return finite
        overflows = tf.cast(tf.logical_not(finite), tf.float32)
        return tf.equal(replica.all_reduce(tf.distribute.ReduceOp.SUM, overflows), 0)


def make(training: TrainingConfig, model: keras.Model, policy: str) -> keras.optimizers.Optimizer:
    """Make and build the optimizer of the model's variables; `policy` is the Keras dtype policy of the model."""
    optimizer = _OPTIMIZERS[training.optimizer](
        learning_rate=training.learning_rate,
        use_ema=training.ema_momentum is not None,
        ema_momentum=training.ema_momentum or 0.0,
    )
    if training.weight_decay:
        optimizer.weight_decay = tf.Variable(training.weight_decay, trainable=False, dtype=tf.float32)
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    if policy == "mixed_float16":
        optimizer = _LossScale(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer inside a loss-scaling one; any other as it is."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def l1_decays(config: ModelConfig, training: TrainingConfig, seed: int) -> list[float | np.ndarray]:
    """Return each trainable dense layer's L1 decay: a float, or a float64 array shaped like its kernel."""
    first, *others = training.l1_decays(len(config.hidden) + 1)
    if not training.l1_locality:
        return [first, *others]
    assert config.receptive_field  # `Recipe` checks it
    near = receptive_fields(config.hidden[0], 2 * config.receptive_field, seed)
    return [first * (1 + training.l1_locality * (1 - near)), *others]


# Without AutoGraph, a step is traced in half the time.
@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def shrink(
    strategy: tf.distribute.Strategy, model: keras.Model, decays: Sequence[tf.Variable], learning_rate: tf.Tensor
) -> None:
    """Move each kernel's weights towards 0 by `learning_rate` times their L1 decay, but not beyond 0.

    This is the proximal step of an L1 penalty, kept out of the adaptive gradients as AdamW does with weight decay.
    It lets dense layers find local features (Neyshabur 2020, who also sets small weights to 0).

    Args:
        decays: for each trainable kernel, a float32 scalar or an array of the kernel's shape, as from `l1_decays`.
        learning_rate: float32 scalar.
    """

    def move(kernel: tf.Variable, decay: tf.Variable) -> None:
        kernel.assign(tf.sign(kernel) * tf.nn.relu(tf.abs(kernel) - learning_rate * decay))

    kernels = [variable for variable in model.trainable_variables if variable.name == "kernel"]
    for kernel, decay in zip(kernels, decays, strict=True):
        strategy.extended.update(kernel.value, move, args=(decay,))
