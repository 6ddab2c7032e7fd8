"""Stock Keras: the same layers and optimizer by `model.fit`, plain or with all that Keras and tf.data offer."""

import keras
import tensorflow as tf

from fmnist.data.dataset import Images, TrainData
from fmnist.network.build import build

from .cases import Case
from .ours import devices_for


class Fit:
    """`model.fit`; `steps_per_execution` and `jit_compile` are Keras's own, with its defaults.

    pipeline: "arrays", or of tf.data: "images", or "rows", which gathers whole batches by shuffled row numbers and
        so spares the copying of single images.
    """

    def __init__(
        self,
        data: TrainData,
        case: Case,
        pipeline: str = "arrays",
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
    ) -> None:
        # Unless told not to, TensorFlow takes all of a GPU's memory, and other alternatives wait there.
        devices_for(case)
        training = case.training
        self._batch_size = training.batch_size
        self._train = _pipeline(data.train, pipeline, self._batch_size)
        self._validation = data.validation
        self._model = build(case.model, policy=case.precision)
        self._model.compile(
            optimizer=training.optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )

    def train(self) -> None:
        self._model.fit(**self._train, verbose=0)

    def validate(self) -> None:
        self._model.evaluate(self._validation.images, self._validation.labels, batch_size=self._batch_size, verbose=0)


def _pipeline(train: Images, pipeline: str, batch_size: int) -> dict[str, object]:
    """Return the arguments of `model.fit` for the training images."""
    if pipeline == "arrays":
        return {"x": train.images, "y": train.labels, "batch_size": batch_size}
    size = len(train)
    if pipeline == "images":
        dataset = tf.data.Dataset.from_tensor_slices((train.images, train.labels)).cache()
        return {"x": dataset.shuffle(size).batch(batch_size).prefetch(tf.data.AUTOTUNE), "shuffle": False}
    images, labels = tf.constant(train.images), tf.constant(train.labels)
    rows = tf.data.Dataset.range(size).cache().shuffle(size).batch(batch_size)
    batches = rows.map(lambda row: (tf.gather(images, row), tf.gather(labels, row)), tf.data.AUTOTUNE)
    return {"x": batches.prefetch(tf.data.AUTOTUNE), "shuffle": False}
