"""Convert a recipe's `search.space` to Keras Tuner hyperparameters, and a trial's values to configuration."""

from collections.abc import Sequence
from typing import Any

import keras_tuner

from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.search.parameters import HIDDEN, LAYERS, units

# Keras Tuner adds its own values under this prefix (such as Hyperband's brackets); they do not configure a network.
RESERVED = "tuner/"


def hyperparameters(recipe: Recipe) -> keras_tuner.HyperParameters:
    """Return the space of `recipe.search`; its names are the configuration's dotted keys, for a readable table.

    `model.hidden` becomes `model.layers` and a `model.units_N` for each layer, active only if the trial has that layer.

    Raises:
        BadInput: the recipe has no search, or `config.space` refuses its space.
    """
    space = keras_tuner.HyperParameters()
    for key, domain in config.space(recipe).items():
        if domain.layers:
            _add_hidden(space, domain.layers, domain.units)
        elif domain.values:
            _add_values(space, key, domain.values)
        else:
            add = space.Int if isinstance(domain.min, int) else space.Float
            add(key, domain.min, domain.max, sampling=domain.sampling)
    return space


def values(trial: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Return a trial's values by dotted configuration key, as `config.replace` takes them."""
    found = {name: value for name, value in trial.values.items() if not name.startswith(RESERVED)}
    if LAYERS in found:
        found[HIDDEN] = [found.pop(units(layer)) for layer in range(1, found.pop(LAYERS) + 1)]
    return found


def _add_hidden(space: keras_tuner.HyperParameters, layers: tuple[int, int], choices: Sequence[int]) -> None:
    fewest, most = layers
    space.Int(LAYERS, fewest, most)
    for layer in range(1, most + 1):
        with space.conditional_scope(LAYERS, list(range(max(layer, fewest), most + 1))):
            space.Choice(units(layer), list(choices))


def _add_values(space: keras_tuner.HyperParameters, key: str, choices: Sequence[str | bool | int | float]) -> None:
    if len(choices) == 1:
        space.Fixed(key, choices[0])
    elif isinstance(choices[0], bool):
        # A Choice would turn booleans into 0 and 1.
        space.Boolean(key)
    else:
        space.Choice(key, list(choices))
