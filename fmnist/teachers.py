"""Distillation: the finished models that another one learns from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmnist import identity
from fmnist.data import Source
from fmnist.errors import BadInput
from fmnist.rundir import RunDir, check_distinct
from fmnist.schema import Recipe

if TYPE_CHECKING:
    import keras


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
        if recipe.data.validation not in ("none", other.data.validation):
            raise BadInput(
                f"the teacher {run} was trained on validation images of this run (its data.split is "
                f"{other.data.validation}, not {recipe.data.validation}); name one of the same split"
            )
        if not run.trained:
            raise BadInput(f"the teacher {run} has no finished model; run `fmnist train` for it first")
        described.append({"run": run.name, "recipe": other.name, "seed": seed, "sha256": identity.of_model(run)})
    return described


def load_all(teachers: Sequence[RunDir], source: Source) -> "list[keras.Model]":
    """The teachers' models, for a training on that data.

    Raises:
        BadInput: a teacher was trained on other data, or its model is damaged.
    """
    import tensorflow as tf

    from fmnist.model import load

    for run in teachers:
        run.check_data(source.sha256)
    tensor_float_32 = tf.config.experimental.tensor_float_32_execution_enabled()
    models = [load(run.model) for run in teachers]
    # `load` turned it off, which is not for a training.
    tf.config.experimental.enable_tensor_float_32_execution(tensor_float_32)
    return models
