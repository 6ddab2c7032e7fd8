"""Train models: one compiled call for each epoch, one for its validation, and Keras callbacks between them."""

import functools
import json
import logging
import math
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fmnist.data.dataset import TrainData
from fmnist.devices import PRECISIONS, Devices
from fmnist.errors import BadInput
from fmnist.network import whitening
from fmnist.network.build import build
from fmnist.recipe.schema import ModelConfig, TrainingConfig
from fmnist.signals import Stop
from fmnist.training import checkpoint, footprint, schedule
from fmnist.training.epoch import Program, resident

logger = logging.getLogger(__name__)

# How many compiled programs are kept for later trainings of their shape, such as Hyperband's promotions of trials. Each
# holds its weights and its executable.
_PROGRAMS = 16
# A checkpoint is written after each epoch, unless writing would take more than this share of the time.
_CHECKPOINT_SHARE = 0.05

# The state that stock callbacks gather in a training. Their other attributes are settings, or begin anew in a process.
_LEARNED: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "best_weights", "stopped_epoch", "wait"),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.ReduceLROnPlateau: ("best", "cooldown_counter", "wait"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


Progress = Callable[[int, dict[str, float], float, bool], None]
"""Called with an epoch, counted from 0, its metrics and seconds, and whether an earlier process trained it."""


class Diverged(RuntimeError):
    """The loss is not a finite number any more, so no later epoch can be better."""


@dataclass(frozen=True)
class FitResult:
    """The result of a training.

    model: stock layers in float32, with the weights of the best epoch if early stopping is configured, else the last.
    history: for each metric, one value per epoch: loss, accuracy, learning_rate, and if images are held back val_loss
        and val_accuracy.
    seconds: the time of each epoch with its validation and callbacks; the first one includes compilation.
    """

    model: keras.Model
    history: dict[str, list[float]]
    seconds: list[float]
    images_per_epoch: int

    def best_epoch(self, monitor: str) -> int:
        """Return the epoch, counted from 0, in which `monitor` was best."""
        values = self.history[monitor]
        return values.index(max(values) if _mode(monitor) == "max" else min(values))

    @property
    def images_per_second(self) -> float:
        """The training speed in the median epoch; the first one compiles, as does the first after an interruption."""
        return self.images_per_epoch / statistics.median(self.seconds[1:] or self.seconds)


class Trainer:
    """A trainer of any number of models on one data set; it keeps the data on the devices, and compiled programs.

    Args:
        components: returns the components of the training images, or of their square roots; None to compute them.
    """

    def __init__(
        self, data: TrainData, devices: Devices, components: Callable[[bool], whitening.Components] | None = None
    ) -> None:
        self.devices = devices
        self._components = components or functools.cache(functools.partial(whitening.components, data.train.images))
        self._train = resident(data.train, devices)
        self._validation = resident(data.validation, devices)
        self._programs: OrderedDict[tuple[str, str], Program] = OrderedDict()
        self.compiled = 0
        """How many programs this trainer has compiled; TensorFlow keeps each until the process ends."""

    @property
    def images(self) -> int:
        """The number of images of an epoch."""
        return self._train.size

    def fit(
        self,
        config: ModelConfig,
        training: TrainingConfig,
        *,
        seed: int,
        stop: Stop,
        checkpoint_path: Path,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        progress: Progress | None = None,
    ) -> FitResult:
        """Train a model, or continue the training in `checkpoint_path`, which the caller removes afterwards.

        On the same CPUs the same arguments give the same result, bit for bit, however often the training is
        interrupted. It goes on in the precision in which it began, unless another one was asked for.

        Args:
            seed: random seed of the initial weights, the order of the images, and everything random in a step.
            stop: checked after each epoch.
            progress: called after each epoch, and first for those that a checkpoint holds.

        Raises:
            TooLarge: the training needs more memory than there is.
            Interrupted: a stop was requested; the state is saved.
            Diverged: the loss, in training or validation, became infinite or not a number.
        """
        state, precision = _load(checkpoint_path), self.devices.precision
        if self.devices.free_precision:
            precision = _began_in(state, config, training, seed, self._train.size) or precision
        program = self._program(config, training, precision)
        model = build(config, seed)
        if config.whitening is not None:
            whitening.apply(model, self._components(config.square_root), config.whitening)
        program.reset(config, training, model.get_weights(), seed)
        loop = keras.callbacks.CallbackList(
            [*_standard_callbacks(training), *callbacks],
            add_history=True,
            model=program.model,
            # No epoch is the last one for callbacks: a promoted trial goes on after it. `SwapEMAWeights` would put the
            # averages in place of the weights to go on from.
            epochs=math.inf,
            verbose=0,
        )
        loop.on_train_begin()
        identity = _identity(config, training, seed, self._train.size, precision)
        saver = _Saver(checkpoint_path, identity, program, [one for one in loop.callbacks if type(one) in _LEARNED])
        seconds = saver.restore(state)
        past = program.model.history.history
        if progress:
            for epoch in range(len(seconds)):
                progress(epoch, {name: values[epoch] for name, values in past.items()}, seconds[epoch], True)
        for epoch in range(len(seconds), training.epochs):
            if program.model.stop_training:
                break
            begin = time.perf_counter()
            logs = self._epoch(program, loop, training, seed, epoch)
            loop.on_epoch_end(epoch, logs)
            seconds.append(time.perf_counter() - begin)
            if progress:
                progress(epoch, logs, seconds[epoch], False)
            saver.save(seconds, now=stop.requested or epoch + 1 == training.epochs)
            stop.check()
        loop.on_train_end()
        model.set_weights(program.model.get_weights())
        history = {name: [float(value) for value in values] for name, values in program.model.history.history.items()}
        return FitResult(model, history, seconds, self._train.size)

    def _epoch(
        self,
        program: Program,
        loop: keras.callbacks.CallbackList,
        training: TrainingConfig,
        seed: int,
        epoch: int,
    ) -> dict[str, float]:
        loop.on_epoch_begin(epoch)
        learning_rate = float(keras.ops.convert_to_numpy(program.optimizer.learning_rate))
        rates = schedule.learning_rates(training, learning_rate, epoch, -(-self._train.size // training.batch_size))
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(self._train.size)
        augmented = schedule.augments(training, epoch)
        logs = program.train(self._train, order, training.batch_size, random, rates, augmented)
        loop.on_test_begin()
        validation = program.evaluate(self._validation) if self._validation.size else {}
        loop.on_test_end(validation)
        logs |= {f"val_{name}": value for name, value in validation.items()}
        for name, value in logs.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} became {value} in epoch {epoch + 1}; a lower learning rate may help")
        return logs | {"learning_rate": float(rates[len(rates) // 2])}

    def _program(self, config: ModelConfig, training: TrainingConfig, precision: str) -> Program:
        kind = precision, Program.shape(config, training)
        if kind not in self._programs:
            if self.devices.kind == "cpu":
                footprint.check(config, training, self._train.size, self.devices.count)
            if len(self._programs) == _PROGRAMS:
                self._programs.popitem(last=False)
            self._programs[kind] = Program(config, training, self.devices, precision)
            self.compiled += 1
        self._programs.move_to_end(kind)
        return self._programs[kind]


class _Saver:
    """The checkpoint of a training: all its state between two epochs, of weights, optimizer and callbacks."""

    def __init__(self, path: Path, identity: str, program: Program, callbacks: list[keras.callbacks.Callback]) -> None:
        self._path = path
        self._identity = identity
        self._program = program
        self._callbacks = callbacks
        self._saved = 0.0
        self._cost = 0.0

    def save(self, seconds: list[float], now: bool) -> None:
        """Write the checkpoint; without `now`, only if the last one is old enough for the time that writing takes."""
        begin = time.perf_counter()
        if not now and (begin - self._saved) * _CHECKPOINT_SHARE < self._cost:
            return
        state = {
            "identity": self._identity,
            "seconds": seconds,
            "weights": self._program.model.get_weights(),
            "optimizer": self._program.optimizer_state(),
            "stopped": self._program.model.stop_training,
            "callbacks": {
                type(callback).__name__: {name: getattr(callback, name) for name in _LEARNED[type(callback)]}
                for callback in self._callbacks
            },
        }
        checkpoint.save(self._path, state)
        self._saved = time.perf_counter()
        self._cost = self._saved - begin

    def restore(self, state: dict[str, Any] | None) -> list[float]:
        """Restore what the checkpoint holds, if there is one; return the seconds of each epoch."""
        if state is None:
            return []
        if state.get("identity") != self._identity:
            logger.info("%s belongs to another configuration; starting anew", self._path)
            return []
        if not self._fits(state):
            logger.warning("%s is of another version of Keras; this training starts anew", self._path)
            return []
        self._program.model.set_weights(state["weights"])
        self._program.set_optimizer_state(state["optimizer"])
        self._program.model.stop_training = state["stopped"]
        # Stock callbacks reset themselves in `on_train_begin` and keep no state elsewhere.
        for callback in self._callbacks:
            vars(callback).update(state["callbacks"][type(callback).__name__])
        logger.info("going on after epoch %d", len(state["seconds"]))
        return state["seconds"]

    def _fits(self, state: dict[str, Any]) -> bool:
        known = {"weights": self._program.model.get_weights(), "optimizer": self._program.optimizer_state()}
        return all(list(map(np.shape, state[name])) == list(map(np.shape, values)) for name, values in known.items())


def precision_of(path: Path, config: ModelConfig, training: TrainingConfig, seed: int, images: int) -> str | None:
    """Return the precision in which the checkpoint's training began; None if there is no checkpoint of this training.

    Args:
        images: the number of images of an epoch.
    """
    return _began_in(_load(path), config, training, seed, images)


def _began_in(
    state: dict[str, Any] | None, config: ModelConfig, training: TrainingConfig, seed: int, images: int
) -> str | None:
    identity = state and state.get("identity")
    return next((name for name in PRECISIONS if identity == _identity(config, training, seed, images, name)), None)


def _identity(config: ModelConfig, training: TrainingConfig, seed: int, images: int, precision: str) -> str:
    """Return as text what a training has in common with a checkpoint that it can go on from."""
    identity: dict[str, Any] = {
        "seed": seed,
        "images": images,
        "precision": precision,
        "model": asdict(config),
        "training": asdict(training),
    }
    if not training.one_cycle and training.augment.until == 1:
        # The number of epochs does not identify the training: Hyperband continues a trial for more epochs.
        del identity["training"]["epochs"]
    return json.dumps(identity, sort_keys=True)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        return checkpoint.load(path)
    except BadInput as error:
        # A training from the beginning has the same result.
        logger.warning("%s; this training starts anew", error)
        return None


def _mode(monitor: str) -> str:
    return "max" if monitor.endswith("accuracy") else "min"


def _standard_callbacks(training: TrainingConfig) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = []
    if training.ema_momentum is not None:
        # First, so that the callbacks after it see and keep the averaged weights.
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if plateau := training.reduce_lr_on_plateau:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=plateau.monitor,
                mode=_mode(plateau.monitor),
                factor=plateau.factor,
                patience=plateau.patience,
                min_lr=plateau.min_lr,
            )
        )
    if stopping := training.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=stopping.monitor,
                mode=_mode(stopping.monitor),
                patience=stopping.patience,
                restore_best_weights=True,
            )
        )
    return callbacks
