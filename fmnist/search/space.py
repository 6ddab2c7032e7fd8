"""The search space: a recipe's `search.space` as Keras Tuner hyperparameters, and a trial's values as configuration."""

import typing
from typing import Any

import keras_tuner

from fmnist import config
from fmnist.errors import BadInput
from fmnist.schema import Recipe, SpaceConfig

# Keras Tuner adds values of its own under this prefix (Hyperband's brackets, for example); they configure no network.
RESERVED = "tuner/"
HIDDEN = "model.hidden"
LAYERS = "model.layers"


def units(layer: int) -> str:
    """The hyperparameter that holds the units of hidden layer `layer`, counted from 1."""
    return f"model.units_{layer}"


def hyperparameters(recipe: Recipe) -> keras_tuner.HyperParameters:
    """The space of `recipe.search`, named by the configuration's dotted keys so that a table of trials reads well.

    `model.hidden` becomes `model.layers` and one `model.units_N` a layer, which exists only where the layer does.

    Raises:
        BadInput: no search in this recipe, or a key would take a value that the configuration refuses.
    """
    space = keras_tuner.HyperParameters()
    for key, choices in recipe.require_search().space.items():
        if (key == HIDDEN) != (choices.layers is not None):
            raise BadInput(f"search.space: layers and units are for {HIDDEN} and nothing else; see {key!r}")
        for value in _extremes(choices):
            config.replace(recipe, {key: value})
        if choices.layers is not None and choices.units is not None:
            _add_hidden(space, choices.layers, choices.units)
        elif choices.values is not None:
            _add_values(space, key, list(choices.values))
        else:
            _add_range(space, key, choices, _is_integer(recipe, key))
    return space


def values(trial: keras_tuner.HyperParameters) -> dict[str, Any]:
    """A trial's values by dotted configuration key, as `config.replace` takes them."""
    found = {name: value for name, value in trial.values.items() if not name.startswith(RESERVED)}
    if LAYERS in found:
        found[HIDDEN] = [found.pop(units(layer)) for layer in range(1, found.pop(LAYERS) + 1)]
    return found


def _add_hidden(space: keras_tuner.HyperParameters, layers: tuple[int, int], choices: tuple[int, ...]) -> None:
    fewest, most = layers
    space.Int(LAYERS, fewest, most)
    for layer in range(1, most + 1):
        with space.conditional_scope(LAYERS, list(range(max(layer, fewest), most + 1))):
            space.Choice(units(layer), list(choices))


def _add_values(space: keras_tuner.HyperParameters, key: str, choices: list[Any]) -> None:
    kinds = {type(choice) for choice in choices}
    if len(choices) == 1:
        space.Fixed(key, choices[0])
    elif kinds == {bool}:
        # A Choice would turn them into 0 and 1.
        space.Boolean(key)
    elif kinds == {int, float}:
        space.Choice(key, [float(choice) for choice in choices])
    elif len(kinds) == 1:
        space.Choice(key, choices)
    else:
        raise BadInput(f"search.space: the values of {key!r} are of several types: {choices}")


def _add_range(space: keras_tuner.HyperParameters, key: str, choices: SpaceConfig, integer: bool) -> None:
    if integer:
        space.Int(key, choices.min, choices.max, sampling=choices.sampling)
    else:
        space.Float(key, choices.min, choices.max, sampling=choices.sampling)


def _is_integer(recipe: Recipe, key: str) -> bool:
    section, _, name = key.partition(".")
    return typing.get_type_hints(type(getattr(recipe, section)))[name] is int


def _extremes(choices: SpaceConfig) -> list[Any]:
    """Values that stand for all the others: if the configuration takes these, it takes every value of the space."""
    if choices.layers is not None and choices.units is not None:
        return [[width] * layers for width in choices.units for layers in choices.layers]
    if choices.values is not None:
        return list(choices.values)
    return [choices.min, choices.max]
