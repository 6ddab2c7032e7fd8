"""Distillation: what finished models say of the images that another one is trained on."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fmnist import averaging, checkpoint
from fmnist.data import TrainData
from fmnist.errors import BadInput
from fmnist.model import load
from fmnist.progress import bar
from fmnist.rundir import RunDir, check_distinct
from fmnist.schema import Recipe
from fmnist.signals import Stop

logger = logging.getLogger(__name__)


def describe(teachers: Sequence[RunDir], recipe: Recipe) -> list[dict[str, Any]]:
    """Each teacher as history.json names it: the run folder's name, its recipe and seed, its model's SHA-256.

    Raises:
        BadInput: a teacher but no `training.distillation` in the recipe, or the other way round; a run named twice or
            without a model; or a teacher that was trained on images which this recipe holds back for validation.
    """
    if bool(teachers) != bool(recipe.training.distillation):
        raise BadInput(
            f"recipe {recipe.name} has {'no ' * bool(teachers)}training.distillation: "
            f"{'set it, such as to 0.9, or leave out --teacher' if teachers else 'name its teachers with --teacher'}"
        )
    check_distinct(teachers)
    described = []
    for run in teachers:
        other, seed = run.recipe()
        if other.data.validation != recipe.data.validation:
            raise BadInput(
                f"the teacher {run} was trained on validation images of this run (its data.split is "
                f"{other.data.validation}, not {recipe.data.validation}); name one of the same split"
            )
        if not run.trained:
            raise BadInput(f"the teacher {run} has no finished model; run `fmnist train` for it first")
        sha256 = hashlib.sha256(run.model.read_bytes()).hexdigest()
        described.append({"run": run.path.resolve().name, "recipe": other.name, "seed": seed, "sha256": sha256})
    return described


def soft_targets(
    teachers: Sequence[RunDir], described: Sequence[dict[str, Any]], data: TrainData, kept: Path, stop: Stop
) -> np.ndarray | None:
    """The mean probabilities of the teachers, and of the views of test-time averaging: float32 [n, 10].

    n is the number of training images; None without teachers.

    Args:
        described: what `describe` says of them.
        kept: the file that holds them for the next call, so that an interrupted training goes on with the same.
        stop: asked after each batch.

    Raises:
        BadInput: a teacher was trained on other data.
        Interrupted: a stop was requested.
    """
    if not teachers:
        return None
    for run in teachers:
        run.check_data(data.source.sha256)
    try:
        state = checkpoint.load(kept)
    except BadInput as error:
        logger.warning("%s; the teachers are asked again", error)
        state = None
    if state and state["teachers"] == described:
        return state["soft_targets"]
    tensor_float_32 = tf.config.experimental.tensor_float_32_execution_enabled()
    images = data.train.images
    with bar("teachers", len(teachers) * averaging.VIEWS * len(images), "images") as advance:

        def advanced(count: int) -> None:
            advance(count)
            stop.check()

        models = [load(run.model) for run in teachers]
        said = averaging.probabilities(models, images, tta=True, advance=advanced).astype(np.float32)
    # `load` turned it off, which is not for a training.
    tf.config.experimental.enable_tensor_float_32_execution(tensor_float_32)
    checkpoint.save(kept, {"teachers": described, "soft_targets": said})
    return said
