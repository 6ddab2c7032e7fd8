"""Compile one architecture, so that an epoch of training and a validation are one call each.

Shapes in docstrings: n images of a data set, steps of an epoch, replicas (one on each device), and share: the rows of a
batch on one replica, including padding.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from fmnist.data.dataset import Images
from fmnist.devices import Devices
from fmnist.network.build import build
from fmnist.recipe.schema import CLASSES, ModelConfig, TrainingConfig
from fmnist.training import augment, optimizer
from fmnist.training.forward import Step, forward

# Rows of a validation step: enough to keep the matrix units busy, few enough for any cache.
_VALIDATION_BATCH = 1000
# What is added to a step's seed: a number from 0 up for each layer, then these for augmentation and the next replica.
_AUGMENT_SEEDS = 500
_SEEDS_A_REPLICA = 1000

Tensor: TypeAlias = "tf.Tensor | tf.distribute.DistributedValues"
"""A tensor, or under MirroredStrategy one on each replica. Docstrings give dtype and shape on one replica."""


class Resident(NamedTuple):
    """A data set on the devices, with a copy on each replica.

    images: uint8 [n, 28, 28].
    labels: int32 [n].
    size: n.
    """

    images: Tensor
    labels: Tensor
    size: int


def resident(data: Images, devices: Devices) -> Resident:
    """Copy a data set to every device."""
    labels = data.labels.astype(np.int32)
    return Resident(
        _place([data.images] * devices.count, devices), _place([labels] * devices.count, devices), len(data)
    )


def _place(values: Sequence[np.ndarray] | np.ndarray, devices: Devices) -> Tensor:
    """Copy each replica's value to its device."""
    if not devices.strategy:
        return tf.constant(values[0])

    def place(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        # The strategy would place all of them on the first device.
        with tf.device(devices.names[context.replica_id_in_sync_group]):
            return tf.constant(values[context.replica_id_in_sync_group])

    return devices.strategy.experimental_distribute_values_from_function(place)


def steps(rows: np.ndarray, batch_size: int, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut row numbers, integer [n], into global batches, and divide each batch among the replicas.

    A batch is no larger than all rows; the last one and uneven shares are padded.

    Returns:
        Row numbers, int32 [replicas, steps, share], and weights of that shape, float32: 1 for real rows, 0 for padding.
    """
    batch_size = min(batch_size, len(rows))
    share = -(-batch_size // replicas)
    whole = len(rows) // batch_size
    order = np.zeros((replicas, -(-len(rows) // batch_size), share), np.int32)
    weights = np.zeros(order.shape, np.float32)
    full, last = rows[: whole * batch_size].reshape(whole, batch_size), rows[np.newaxis, whole * batch_size :]
    for these, batches in ((slice(whole), full), (slice(whole, None), last)):
        for replica, part in enumerate(np.array_split(batches, replicas, axis=1)):
            order[replica, these, : part.shape[1]] = part
            weights[replica, these, : part.shape[1]] = 1
    return order, weights


class Program:
    """A model, its optimizer and the compiled functions over them.

    Whatever a search varies between trials of one shape (`shape`) is a variable, so one program serves them all.
    """

    def __init__(
        self, config: ModelConfig, training: TrainingConfig, devices: Devices, precision: str | None = None
    ) -> None:
        """Build the model and its optimizer, in `precision` or else in that of the devices."""
        policy = precision or devices.precision
        self._devices = devices
        self._augment = training.augment
        self._replicas = devices.count
        # ThreeFry is several times faster than Philox under XLA on CPU, and exists only under XLA.
        self._algorithm = "threefry" if devices.xla else "philox"
        self._gpu = devices.xla and devices.kind == "gpu"
        with devices.scope():
            self.model = build(config, policy=policy)
            self.optimizer = optimizer.make(training, self.model, policy)
            self._dropout_rates = tf.Variable(config.dropout_rates, trainable=False, dtype=tf.float32)
            self._l1_decays = [
                tf.Variable(decay, trainable=False, dtype=tf.float32)
                for decay in optimizer.l1_decays(config, training, seed=0)
            ]
        self._decays_l1 = any(training.l1_decays(len(self._l1_decays)))
        # Keras callbacks look for the optimizer on the model.
        self.model.compile(optimizer=self.optimizer)
        self._initial = [variable.numpy() for variable in self.optimizer.variables]
        self._train = tf.function(self._train_epoch, jit_compile=devices.xla)
        # A validation is a few large steps: compiling it with XLA would take longer than a training's validations do.
        self._evaluate = tf.function(self._evaluate_epoch)

    @staticmethod
    def shape(config: ModelConfig, training: TrainingConfig) -> str:
        """Return what a program is compiled for, as text; configurations of equal shape share a program.

        This is the whole configuration except the keys that are named here: those that variables hold (for some,
        whether they are on is compiled in), and those that only the loop around the program uses. A new key is
        therefore compiled in until it is named here.
        """
        layers = len(config.hidden) + 1
        variable = {
            "kernel_initializer": None,
            "receptive_field": None,
            "whitening": config.whitening is not None,
            "local_contrast": config.local_contrast is not None,
            "dropout": [rate > 0 for rate in config.dropout_rates],
            "learning_rate": None,
            "weight_decay": training.weight_decay > 0,
            "l1_decay": any(training.l1_decays(layers)),
            "l1_locality": training.l1_locality > 0,
            "augment": {**asdict(training.augment), "until": None},
        }
        loop = dict.fromkeys(("epochs", "one_cycle", "early_stopping", "reduce_lr_on_plateau"))
        return json.dumps({**asdict(config), **asdict(training), **variable, **loop})

    def reset(self, config: ModelConfig, training: TrainingConfig, weights: list[np.ndarray], seed: int) -> None:
        """Begin another training of this shape, from the model that `build` makes of `config` and `seed`.

        Args:
            weights: that model's weights, as from `keras.Model.get_weights`.
        """
        self.model.set_weights(weights)
        self.set_optimizer_state(self._initial)
        self.optimizer.learning_rate = training.learning_rate
        if training.weight_decay:
            optimizer.inner(self.optimizer).weight_decay.assign(training.weight_decay)
        self._dropout_rates.assign(config.dropout_rates)
        for variable, decay in zip(self._l1_decays, optimizer.l1_decays(config, training, seed), strict=True):
            variable.assign(decay)
        self.model.stop_training = False

    def optimizer_state(self) -> list[np.ndarray]:
        """Return the values of the optimizer's variables: iterations, learning rate, moments."""
        return [variable.numpy() for variable in self.optimizer.variables]

    def set_optimizer_state(self, state: list[np.ndarray]) -> None:
        """Set the optimizer's variables to values that `optimizer_state` returned."""
        for variable, value in zip(self.optimizer.variables, state, strict=True):
            variable.assign(value)

    def train(
        self,
        data: Resident,
        rows: np.ndarray,
        batch_size: int,
        random: np.random.Generator,
        learning_rates: np.ndarray | None = None,
        augmented: bool = True,
    ) -> dict[str, float]:
        """Train one epoch on `rows`, integer [rows], in their order.

        Args:
            batch_size: the number of images in a step, over all replicas.
            random: the source of everything random in the epoch.
            learning_rates: float32 [steps]; None for the optimizer's own learning rate throughout.
            augmented: whether the images are shifted, if the configuration says so at all.

        Returns:
            The mean loss and the accuracy over the rows.
        """
        order, weights, totals = self._steps(rows, batch_size)
        if learning_rates is None:
            learning_rates = np.full(len(totals), self.optimizer.learning_rate, np.float32)
        seed = random.integers(2**31, size=2, dtype=np.int32)
        loss, correct = self._train(data, order, weights, totals, seed, learning_rates, np.array(augmented))
        return {"loss": float(loss) / len(rows), "accuracy": float(correct) / len(rows)}

    def evaluate(self, data: Resident) -> dict[str, float]:
        """Return the loss and accuracy over the whole data set, without dropout and with the moving statistics."""
        loss, correct = self._evaluate(data, *self._steps(np.arange(data.size), _VALIDATION_BATCH))
        return {"loss": float(loss) / data.size, "accuracy": float(correct) / data.size}

    def _steps(self, rows: np.ndarray, batch_size: int) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return `order` and `weights` as from `steps`, on the replicas, and the real rows of each step, float32."""
        order, weights = steps(rows, batch_size, self._replicas)
        return _place(order, self._devices), _place(weights, self._devices), weights.sum(axis=(0, 2))

    def _train_epoch(
        self,
        data: Resident,
        order: Tensor,
        weights: Tensor,
        totals: tf.Tensor,
        seed: tf.Tensor,
        learning_rates: tf.Tensor,
        augmented: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Train one epoch; return the sum of the losses and the number of correct predictions, float32 scalars.

        Args:
            order, weights: int32 and float32 [steps, share], from `steps`.
            totals: float32 [steps], the real rows of each step on all replicas.
            seed: int32 [2].
            learning_rates: float32 [steps].
            augmented: bool scalar.
        """
        losses = correct = self._zeros(weights)[1]
        for step in tf.range(tf.shape(totals)[0]):
            self.optimizer.learning_rate.assign(learning_rates[step])
            batch = (step, order, weights, totals[step], seed + [step, 0], augmented)
            sums = self._run(self._train_step, data, *batch)
            if self._decays_l1:
                strategy = self._devices.strategy or tf.distribute.get_strategy()
                optimizer.shrink(strategy, self.model, self._l1_decays, learning_rates[step])
            # Row by row: on a GPU each step's sums would be kernels of their own.
            losses, correct = losses + sums[0], correct + sums[1]
        return tf.reduce_sum(losses), tf.reduce_sum(correct)

    def _evaluate_epoch(
        self, data: Resident, order: Tensor, weights: Tensor, totals: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluate the model; the arguments and results are as in `_train_epoch`."""
        loss, correct = self._zeros(weights)
        for step in tf.range(tf.shape(totals)[0]):
            sums = self._run(self._evaluate_step, data, step, order, weights, totals[step])
            loss, correct = loss + sums[0], correct + sums[1]
        return loss, tf.reduce_sum(correct)

    # AutoGraph is needed only for the loop over the steps; without it, a step is traced in half the time.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def _zeros(self, weights: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what the sums of a step are added to."""
        share = weights if not self._devices.strategy else self._devices.strategy.experimental_local_results(weights)[0]
        return tf.constant(0.0), tf.zeros_like(share[0])

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def _run(self, function: Callable[..., tuple[tf.Tensor, tf.Tensor]], *arguments: Any) -> Sequence[tf.Tensor]:
        """Run one step on every replica, and return the sums of their results."""
        strategy = self._devices.strategy
        if not strategy:
            return function(*arguments)
        # No replica waits for these sums, as it would for a collective operation.
        return [tf.add_n(strategy.experimental_local_results(value)) for value in strategy.run(function, arguments)]

    def _train_step(
        self,
        data: Resident,
        step: tf.Tensor,
        order: tf.Tensor,
        weights: tf.Tensor,
        total: tf.Tensor,
        seed: tf.Tensor,
        augmented: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Train on one replica's share of a step; return the loss of each row, float32 [share], and `_correct`.

        Args:
            step: int32 scalar.
            order, weights: int32 and float32 [steps, share].
            total: float32 scalar, the real rows on all replicas.
            seed: int32 [2].
            augmented: bool scalar.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows, weights = order[step], weights[step]
        if self._replicas == 1:
            # On a GPU this sum is part of another kernel, and the number of `totals` would need its own.
            total = tf.reduce_sum(weights)
        seed += [0, _SEEDS_A_REPLICA * replica]
        inputs, classes = tf.gather(data.images, rows), tf.gather(data.labels, rows)
        inputs = augment.transform(self._augment, inputs, seed + [0, _AUGMENT_SEEDS], self._algorithm, augmented)
        targets = tf.one_hot(classes, CLASSES)
        context = Step(weights[:, tf.newaxis], total, seed, self._dropout_rates, self._algorithm, self._gpu)
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            logits = forward(self.model, inputs, context)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits) * weights
            # Each replica adds its part of the penalty, so that the sum over the replicas is the global batch's.
            penalty = total * sum(self.model.losses) / self._replicas
            objective = self.optimizer.scale_loss((tf.reduce_sum(losses) + penalty) / total)
        self.optimizer.apply(tape.gradient(objective, variables), variables)
        return losses + penalty / losses.shape[0], _correct(logits, classes, weights)

    def _evaluate_step(
        self, data: Resident, step: tf.Tensor, order: tf.Tensor, weights: tf.Tensor, total: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluate one replica's share of a step, as `_train_step`; return the sum of the losses, and `_correct`."""
        rows, weights = order[step], weights[step]
        logits, classes = self.model(tf.gather(data.images, rows), training=False), tf.gather(data.labels, rows)
        crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        loss = tf.reduce_sum(crossentropy * weights) + total * sum(self.model.losses) / self._replicas
        return loss, _correct(logits, classes, weights)


def _correct(logits: tf.Tensor, classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return 1 for each real row that is predicted correctly, else 0: float32 [share].

    Args:
        logits: float32 [share, 10].
        classes: int32 [share].
        weights: float32 [share], 1 for real rows, 0 for padding.
    """
    hits = tf.equal(tf.argmax(logits, axis=1, output_type=classes.dtype), classes)
    return tf.cast(hits, tf.float32) * weights
