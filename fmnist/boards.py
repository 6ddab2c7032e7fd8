"""What TensorBoard shows of the final training beyond Keras's curves: pictures of the validation, and speed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fmnist import pictures
from fmnist.data import Images

_MISTAKES = 18
# The pictures are drawn once an epoch, unless their drawing would take more than this share of the time.
_PICTURES_SHARE = 0.05


@dataclass
class _Clock:
    """What this process has seen. `fit` saves the plain attributes of a callback, which these must not be."""

    epochs: int = 0
    profiling: bool = False
    begin: float = 0.0
    seconds: float = 0.0
    drawn: float = 0.0
    cost: float = 0.0


def tensorboard(directory: Path) -> keras.callbacks.Callback:
    """Scalars per epoch, and nothing that costs time in between."""
    return keras.callbacks.TensorBoard(str(directory), write_graph=False, profile_batch=0)


class ValidationBoard(keras.callbacks.Callback):
    """After each epoch the time of a training step, the confusion matrix and the most confident mistakes.

    The pictures are of the validation images, if there are any; epochs too short for them go without.

    Args:
        directory: of the training's runs; this one is `pictures` there.
        names: of the ten classes.
        images: that an epoch trains on.
        batch_size: of a step.
        profile: whether to profile the second epoch of this process, the first that compiles nothing.
    """

    def __init__(
        self, directory: Path, validation: Images, names: Sequence[str], images: int, batch_size: int, profile: bool
    ) -> None:
        super().__init__()
        # By the names of the arguments: `fit` takes any other plain attribute for state, and saves it.
        self.directory = directory
        self.validation = validation
        self.names = names
        self.images = images
        self.batch_size = batch_size
        self.profile = profile
        self._writer = tf.summary.create_file_writer(str(directory / "pictures"))
        self._clock = _Clock()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._clock.epochs += 1
        if self.profile and self._clock.epochs == 2:
            tf.profiler.experimental.start(str(self.directory))
            self._clock.profiling = True
        self._clock.begin = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._clock.seconds = time.perf_counter() - self._clock.begin

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        clock = self._clock
        if clock.profiling:
            tf.profiler.experimental.stop()
            clock.profiling = False
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("speed/milliseconds_a_step", 1000 * clock.seconds / -(-self.images // self.batch_size))
            tf.summary.scalar("speed/images_a_second", self.images / clock.seconds)
        begin = time.perf_counter()
        if len(self.validation) and (begin - clock.drawn) * _PICTURES_SHARE >= clock.cost:
            self._draw(epoch)
            clock.drawn = time.perf_counter()
            clock.cost = clock.drawn - begin

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _draw(self, epoch: int) -> None:
        logits = np.asarray(self.model(self.validation.images, training=False), np.float32)
        predicted, y_true = logits.argmax(axis=1), self.validation.labels
        classes = len(self.names)
        matrix = np.bincount(classes * y_true.astype(int) + predicted, minlength=classes**2).reshape(classes, classes)
        probabilities = np.asarray(tf.nn.softmax(logits))
        wrong = pictures.confident_mistakes(y_true, probabilities, _MISTAKES)
        gallery = pictures.gallery(self.validation.images[wrong], y_true[wrong], predicted[wrong], self.names)
        rows = f"Rows: the true class; columns: the predicted one; both in the order {', '.join(self.names)}."
        with self._writer.as_default(step=epoch):
            tf.summary.image(
                "validation/confusion_matrix", pictures.confusion_image(matrix)[np.newaxis], description=rows
            )
            tf.summary.image("validation/most_confident_mistakes", gallery[np.newaxis])
