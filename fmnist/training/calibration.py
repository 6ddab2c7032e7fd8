"""Find out by a few steps whether several devices train this network faster than one."""

import dataclasses
import logging
import statistics
import time
from collections.abc import Mapping

import numpy as np

from fmnist.data.dataset import Images
from fmnist.devices import Devices
from fmnist.errors import first_line
from fmnist.network.build import build
from fmnist.recipe.schema import Recipe
from fmnist.training.epoch import Program, resident

logger = logging.getLogger(__name__)

_STEPS, _REPETITIONS = 20, 3
# Compiling both programs takes seconds. One device trains fewer images than this in about that time.
_IMAGES = 1_000_000
# Several devices must be faster by this factor: the others could do something else.
_GAIN = 1.1


def settle(
    devices: Devices, recipe: Recipe, images: Images, speeds: Mapping[str, float]
) -> tuple[Devices, dict[str, float]]:
    """Choose between the first and all of the devices, if they may be chosen from (`Devices.optional`).

    Args:
        images: the training images.
        speeds: the images/s of an earlier process of this training, by number of devices. They decide again, so that
            the training goes on with the same number.

    Returns:
        The devices to train on, and the images/s that decided, by number of devices: 0 where a training failed; empty
        if nothing was measured.
    """
    if not devices.optional:
        return devices, {}
    one, everything = devices.usual, dataclasses.replace(devices, optional=False)
    if recipe.training.epochs * len(images) < _IMAGES:
        logger.info("this training is too short for %d devices; it takes one", devices.count)
        return one, {}
    candidates = {str(each.count): each for each in (one, everything)}
    if set(speeds) != set(candidates):
        speeds = {count: _try(each, recipe, images) for count, each in candidates.items()}
    pays = speeds[str(devices.count)] > _GAIN * speeds["1"]
    logger.info(
        "%d devices train %s images/s, one %s: taking %s",
        *(devices.count, f"{speeds[str(devices.count)]:,.0f}", f"{speeds['1']:,.0f}", "all" if pays else "one"),
    )
    return everything if pays else one, dict(speeds)


def _try(devices: Devices, recipe: Recipe, images: Images) -> float:
    """Return the images/s; 0 if these devices cannot train, which the others perhaps can."""
    try:
        return round(speed(devices, recipe, images), 1)
    except Exception as error:
        logger.warning("%d of the devices cannot train this: %s", devices.count, first_line(error))
        return 0.0


def speed(devices: Devices, recipe: Recipe, images: Images) -> float:
    """Return the images/s of training steps on some of the images: the median of a few repetitions."""
    batch_size = min(recipe.training.batch_size, len(images))
    rows = np.arange(_STEPS * batch_size) % len(images)
    data = resident(images, devices)
    program = Program(recipe.model, recipe.training, devices)
    program.reset(recipe.model, recipe.training, build(recipe.model, seed=0).get_weights(), seed=0)
    seconds = []
    for _ in range(1 + _REPETITIONS):
        begin = time.perf_counter()
        program.train(data, rows, batch_size, np.random.default_rng(0))
        seconds.append(time.perf_counter() - begin)
    # The first one compiles.
    return len(rows) / statistics.median(seconds[1:])
