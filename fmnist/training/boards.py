"""Write what TensorBoard shows: curves, speed and pictures of the final training; curves and score of each trial.

TensorBoard's SCALARS and IMAGES tick runs of their own accord only where there are no more than 40. A run is a folder
with events, so there are few: two of a final training, one that its evaluation adds, and one of each trial. Both pages
sort by a tag's first word, so that the final training comes first.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from fmnist.data.dataset import Images
from fmnist.network import pictures

CONFUSION = "pictures/confusion_matrix"
"""Tag of the confusion matrices, of the validation and of the test."""

_MISTAKES = 18
# Pictures are drawn after each epoch, unless drawing would take more than this share of the time.
_PICTURES_SHARE = 0.05


class FinalBoard(keras.callbacks.Callback):
    """A callback that writes curves, the time of a step, the confusion matrix and confident mistakes of each epoch.

    It writes two runs, `train` and `validation`, so that one chart has both curves; Keras's own callback would need
    further runs for the pictures. The pictures are of the validation images, if there are any. Epochs too short for
    drawing have none.

    Args:
        directory: the folder of both runs.
        names: the names of the ten classes.
        images: the number of images that an epoch trains on.
        batch_size: the number of images in a step.
    """

    def __init__(self, directory: Path, validation: Images, names: Sequence[str], images: int, batch_size: int) -> None:
        super().__init__()
        self._validation = validation
        self._names = names
        self._images = images
        self._batch_size = batch_size
        self._train_writer = tf.summary.create_file_writer(str(directory / "train"))
        self._validation_writer = (
            tf.summary.create_file_writer(str(directory / "validation")) if len(validation) else None
        )
        self._begin = self._seconds = 0.0
        self._drawn = self._cost = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._seconds = time.perf_counter() - self._begin

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with self._train_writer.as_default(step=epoch):
            for name, value in logs.items():
                if not name.startswith("val_"):
                    tf.summary.scalar(f"curves/{name}", value)
            tf.summary.scalar("speed/milliseconds_a_step", 1000 * self._seconds / -(-self._images // self._batch_size))
            tf.summary.scalar("speed/images_a_second", self._images / self._seconds)
        self._train_writer.flush()
        if self._validation_writer:
            with self._validation_writer.as_default(step=epoch):
                self._show_validation(logs)
            self._validation_writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._train_writer.close()
        if self._validation_writer:
            self._validation_writer.close()

    def _show_validation(self, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            if name.startswith("val_"):
                tf.summary.scalar(f"curves/{name.removeprefix('val_')}", value)
        begin = time.perf_counter()
        if (begin - self._drawn) * _PICTURES_SHARE >= self._cost:
            self._draw()
            self._drawn = time.perf_counter()
            self._cost = self._drawn - begin

    def _draw(self) -> None:
        logits = np.asarray(self.model(self._validation.images, training=False), np.float32)
        predicted, y_true = logits.argmax(axis=1), self._validation.labels
        classes = len(self._names)
        matrix = np.bincount(classes * y_true.astype(int) + predicted, minlength=classes**2).reshape(classes, classes)
        wrong = pictures.confident_mistakes(y_true, np.asarray(tf.nn.softmax(logits)), _MISTAKES)
        gallery = pictures.gallery(self._validation.images[wrong], y_true[wrong], predicted[wrong], self._names)
        tf.summary.image(CONFUSION, pictures.confusion_image(matrix, self._names)[np.newaxis])
        tf.summary.image("pictures/most_confident_mistakes", gallery[np.newaxis])


class TrialBoard:
    """A trial as one run: the curves of its validation, and a row of the HParams page.

    HParams takes trials of one name for the same one, and shows their mean. Without a declared experiment it has a
    column for every hyperparameter of every search; with one, for those of some search that it happens to find first.

    Args:
        directory: of the run; what another attempt has left there goes, for a trial tells all its epochs again.
        name: that no trial of another run has.
        values: of the hyperparameters, by their names.
    """

    def __init__(self, directory: Path, name: str, values: Mapping[str, str | bool | int | float]) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(directory))
        self.session = hparams.KerasCallback(self._writer, dict(values), trial_id=name)
        """The callback that says that the trial has begun and ended."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch, counted from 0, to the curves."""
        with self._writer.as_default(step=epoch):
            for name, value in metrics.items():
                if name.startswith("val_"):
                    tf.summary.scalar(f"trial_curves/{name}", value)
        self._writer.flush()

    def end(self, score: float, best_epoch: int, epochs: int) -> None:
        """Add the search's score, which is the best epoch's, counted from 0, and the number of epochs trained."""
        with self._writer.as_default():
            tf.summary.scalar("trial/score", score, step=best_epoch)
            tf.summary.scalar("trial/epochs", epochs, step=epochs - 1)
        self._writer.close()
