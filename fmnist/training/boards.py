"""Write what TensorBoard shows of a training: Keras's curves, and pictures and speed of the final training."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fmnist.data.dataset import Images
from fmnist.network import pictures

_MISTAKES = 18
# Pictures are drawn after each epoch, unless drawing would take more than this share of the time.
_PICTURES_SHARE = 0.05


def tensorboard(directory: Path) -> keras.callbacks.Callback:
    """Return Keras's callback for TensorBoard, limited to scalars per epoch, since the rest costs time."""
    return keras.callbacks.TensorBoard(str(directory), write_graph=False, profile_batch=0)


class ValidationBoard(keras.callbacks.Callback):
    """A callback that writes, after each epoch, the time of a step, the confusion matrix and confident mistakes.

    The pictures are of the validation images, if there are any. Epochs too short for drawing have none.

    Args:
        directory: the training's folder for TensorBoard; the callback writes into its subfolder `pictures`.
        names: the names of the ten classes.
        images: the number of images that an epoch trains on.
        batch_size: the number of images in a step.
        profile: whether to profile the second epoch of this process, the first that compiles nothing.
    """

    def __init__(
        self, directory: Path, validation: Images, names: Sequence[str], images: int, batch_size: int, profile: bool
    ) -> None:
        super().__init__()
        self._directory = directory
        self._validation = validation
        self._names = names
        self._images = images
        self._batch_size = batch_size
        self._profile = profile
        self._writer = tf.summary.create_file_writer(str(directory / "pictures"))
        self._epochs = 0
        self._profiling = False
        self._begin = self._seconds = 0.0
        self._drawn = self._cost = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epochs += 1
        if self._profile and self._epochs == 2:
            tf.profiler.experimental.start(str(self._directory))
            self._profiling = True
        self._begin = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._seconds = time.perf_counter() - self._begin

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._profiling:
            tf.profiler.experimental.stop()
            self._profiling = False
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("speed/milliseconds_a_step", 1000 * self._seconds / -(-self._images // self._batch_size))
            tf.summary.scalar("speed/images_a_second", self._images / self._seconds)
        begin = time.perf_counter()
        if len(self._validation) and (begin - self._drawn) * _PICTURES_SHARE >= self._cost:
            self._draw(epoch)
            self._drawn = time.perf_counter()
            self._cost = self._drawn - begin

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _draw(self, epoch: int) -> None:
        logits = np.asarray(self.model(self._validation.images, training=False), np.float32)
        predicted, y_true = logits.argmax(axis=1), self._validation.labels
        classes = len(self._names)
        matrix = np.bincount(classes * y_true.astype(int) + predicted, minlength=classes**2).reshape(classes, classes)
        probabilities = np.asarray(tf.nn.softmax(logits))
        wrong = pictures.confident_mistakes(y_true, probabilities, _MISTAKES)
        gallery = pictures.gallery(self._validation.images[wrong], y_true[wrong], predicted[wrong], self._names)
        rows = f"Rows: the true class; columns: the predicted one; both in the order {', '.join(self._names)}."
        with self._writer.as_default(step=epoch):
            tf.summary.image(
                "validation/confusion_matrix", pictures.confusion_image(matrix)[np.newaxis], description=rows
            )
            tf.summary.image("validation/most_confident_mistakes", gallery[np.newaxis])
