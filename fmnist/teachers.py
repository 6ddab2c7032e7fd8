"""Distillation: what finished models say of the images that another one is trained on."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fmnist import averaging
from fmnist.data import TrainData
from fmnist.errors import BadInput
from fmnist.model import load
from fmnist.progress import bar
from fmnist.rundir import RunDir
from fmnist.schema import Recipe


def describe(teachers: Sequence[RunDir], recipe: Recipe) -> list[dict[str, Any]]:
    """Each teacher as history.json names it: the run folder's name, its recipe and seed, its model's SHA-256.

    Raises:
        BadInput: a teacher but no `training.distillation` in the recipe, or the other way round; a run without a
            model; or a teacher that was trained on images which this recipe holds back for validation.
    """
    if bool(teachers) != bool(recipe.training.distillation):
        raise BadInput(
            f"recipe {recipe.name} has {'no ' * bool(teachers)}training.distillation: "
            f"{'set it, such as to 0.9, or leave out --teacher' if teachers else 'name its teachers with --teacher'}"
        )
    described = []
    for run in teachers:
        other, seed = run.recipe()
        if other.data.validation != recipe.data.validation:
            raise BadInput(
                f"the teacher {run} was trained on validation images of this run (its data.split is "
                f"{other.data.validation}, not {recipe.data.validation}); name one of the same split"
            )
        if not run.model.exists():
            raise BadInput(f"the teacher {run} has no model; run `fmnist train` for it first")
        sha256 = hashlib.sha256(run.model.read_bytes()).hexdigest()
        described.append({"run": run.path.resolve().name, "recipe": other.name, "seed": seed, "sha256": sha256})
    return described


def soft_targets(teachers: Sequence[RunDir], data: TrainData) -> np.ndarray | None:
    """The mean probabilities of the teachers, and of the views of test-time averaging: float32 [n, 10].

    n is the number of training images; None without teachers.
    """
    if not teachers:
        return None
    tensor_float_32 = tf.config.experimental.tensor_float_32_execution_enabled()
    images = data.train.images
    with bar("teachers", len(teachers) * averaging.VIEWS * len(images), "images") as advance:
        said = averaging.probabilities([load(run.model) for run in teachers], images, tta=True, advance=advance)
    # `load` turned it off, which is not for a training.
    tf.config.experimental.enable_tensor_float_32_execution(tensor_float_32)
    return said.astype(np.float32)
