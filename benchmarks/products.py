"""The ceiling: the matrix products of a training step and nothing else."""

import itertools
import math

import tensorflow as tf

from fmnist.data.dataset import TrainData
from fmnist.recipe.schema import CLASSES

from .cases import Case
from .ours import devices_for

# Different matrices in turn, so that no compiler moves a product out of the loop.
_BATCHES = 4


class Products:
    """For each layer the product forward and those for the gradients of weights and inputs.

    As often as an epoch has steps, in one call; the uneven last batch counts whole.
    """

    def __init__(self, data: TrainData, case: Case, xla: bool = False) -> None:
        devices_for(case)
        dtype = tf.bfloat16 if case.precision == "mixed_bfloat16" else tf.float32
        batch_size = case.training.batch_size
        widths = [28 * 28, *case.model.hidden, CLASSES]

        def random(*shape: int) -> tf.Tensor:
            return tf.cast(tf.random.normal(shape), dtype)

        self._steps = math.ceil(len(data.train) / batch_size)
        self._inputs = [random(_BATCHES, batch_size, width) for width in widths[:-1]]
        self._gradients = [random(_BATCHES, batch_size, width) for width in widths[1:]]
        self._weights = [random(*shape) for shape in itertools.pairwise(widths)]
        self._epoch = tf.function(self._products, jit_compile=xla)

    def train(self) -> None:
        results = self._epoch(self._inputs, self._gradients, self._weights, tf.constant(self._steps))
        # Only a value fetched is a value computed.
        float(results[-1][0, 0])

    def validate(self) -> None:
        """There is nothing to validate."""

    def _products(
        self, inputs: list[tf.Tensor], gradients: list[tf.Tensor], weights: list[tf.Tensor], steps: tf.Tensor
    ) -> list[tf.Tensor]:
        results = _step(inputs, gradients, weights, 0)
        for step in tf.range(1, steps):
            results = _step(inputs, gradients, weights, step % _BATCHES)
        return results


def _step(
    inputs: list[tf.Tensor], gradients: list[tf.Tensor], weights: list[tf.Tensor], batch: tf.Tensor | int
) -> list[tf.Tensor]:
    results = []
    for layer, (x, g, w) in enumerate(zip(inputs, gradients, weights, strict=True)):
        results += [x[batch] @ w, tf.matmul(x[batch], g[batch], transpose_a=True)]
        if layer > 0:  # the images need no gradient
            results.append(tf.matmul(g[batch], w, transpose_b=True))
    return results
