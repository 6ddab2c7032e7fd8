"""Several devices beside one: the speed of a training step, by the calibration that `--devices auto` chooses by."""

import logging
from collections.abc import Sequence
from statistics import median

from fmnist.data import dataset
from fmnist.devices import choose
from fmnist.recipe.schema import DataConfig, ModelConfig, Recipe, TrainingConfig
from fmnist.training import calibration

from . import machine
from .output import options, publish
from .table import Figure, cost

logger = logging.getLogger(__name__)

# What the devices' exchange costs shows where arithmetic is nothing; whether they pay, where it is all.
SMALL, LARGE = ((16,), 128), ((2048, 2048), 4096)


def seconds(devices: str, hidden: Sequence[int], batch_size: int) -> float:
    """The seconds of a training step with batch normalisation, dropout and Adam on `--devices`."""
    recipe = Recipe(
        name="several",
        data=DataConfig(),
        model=ModelConfig(hidden=tuple(hidden), batch_normalization=True, dropout=0.2),
        training=TrainingConfig(batch_size=batch_size),
    )
    return batch_size / calibration.speed(choose(devices), recipe, dataset.load_train(None, recipe.data).train)


def main() -> None:
    arguments = options("several", __doc__, pairs=3).parse_args()
    here = machine.describe()
    of = "{}" if here["kind"] == "gpu" else "cpu:{}"
    figures = []
    for (hidden, batch_size), counts, goal in (SMALL, (2, 4, 8), ""), (LARGE, (2,), "<= 1.25"):
        case = f"{'-'.join(map(str, hidden))}, batch {batch_size}"
        samples: dict[int, list[float]] = {count: [] for count in (1, *counts)}
        for _ in range(arguments.pairs):
            for count, taken in samples.items():
                # TensorFlow's devices are fixed in a process.
                taken.append(machine.alone(seconds, of.format(count), hidden, batch_size))
        logger.info("%s: %s", case, {count: f"{1000 * median(taken):.2f} ms" for count, taken in samples.items()})
        one = tuple(samples.pop(1))
        for count, taken in samples.items():
            name = f"seconds of a step, {count} devices over one"
            figures.append(Figure(name, case, goal, tuple(taken), one, cost(taken, one)))
    publish("several", here, figures, arguments.out)
