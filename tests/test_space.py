from typing import Any

import pytest
from searching import SPACE, recipe

from fmnist import config
from fmnist.errors import BadInput
from fmnist.schema import Recipe
from fmnist.search import oracles, space


def samples(of: Recipe, count: int = 60) -> list[dict[str, Any]]:
    oracle = oracles.make(of, 0)
    oracle.max_trials = count
    return [space.values(oracle.create_trial(f"worker{n}").hyperparameters) for n in range(count)]


def test_every_sample_is_a_configuration() -> None:
    of = recipe()
    found = samples(of)
    for values in found:
        resolved = config.replace(of, values)
        assert 1 <= len(resolved.model.hidden) <= 3
        assert set(resolved.model.hidden) <= {16, 32, 64}
        assert 1e-4 <= resolved.training.learning_rate <= 1e-1
    assert {len(values["model.hidden"]) for values in found} == {1, 2, 3}
    below = [values for values in found if values["training.learning_rate"] < 10**-2.5]
    assert 0.3 < len(below) / len(found) < 0.7  # the middle of a logarithmic range


def test_units_exist_only_where_the_layer_does() -> None:
    oracle = oracles.make(recipe(trials=30), 0)
    for n in range(30):
        values = oracle.create_trial(f"worker{n}").hyperparameters.values
        assert [f"model.units_{layer}" in values for layer in (1, 2, 3)] == [
            layer <= values["model.layers"] for layer in (1, 2, 3)
        ]


def test_a_range_over_an_integer_key_gives_integers() -> None:
    found = samples(recipe(space={"training.batch_size": {"min": 32, "max": 512, "sampling": "log"}}), 20)
    assert all(type(values["training.batch_size"]) is int for values in found)
    assert all(32 <= values["training.batch_size"] <= 512 for values in found)


def test_booleans_stay_booleans_and_one_value_stays_itself() -> None:
    of = recipe(
        space={
            "model.batch_normalization": {"values": [True, False]},
            "model.dropout": {"values": [0, 0.25]},
            "training.optimizer": {"values": ["nadam"]},
            "training.learning_rate": {"min": 0.1, "max": 0.2},
        }
    )
    found = samples(of)
    assert {values["model.batch_normalization"] for values in found} == {True, False}
    assert all(type(values["model.batch_normalization"]) is bool for values in found)
    assert {values["model.dropout"] for values in found} == {0.0, 0.25}
    assert {values["training.optimizer"] for values in found} == {"nadam"}


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"training.learning_rate": {"min": -1.0, "max": 1.0}}, "learning_rate"),
        ({"training.optimizer": {"values": ["adam", "adan"]}}, "optimizer"),
        ({"training.batch_size": {"values": [32, "many"]}}, "batch_size"),
        ({"model.hidden": {"values": [32, 64]}}, "model.hidden"),
        ({"model.dropout": {"layers": [1, 2], "units": [3]}}, "model.dropout"),
    ],
)
def test_a_space_that_the_configuration_refuses_is_refused_before_the_search(bad: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        space.hyperparameters(recipe(space={**SPACE, **bad}))


def test_a_recipe_without_a_search_is_refused() -> None:
    with pytest.raises(BadInput, match="fixed"):
        space.hyperparameters(config.resolve({"name": "fixed", "description": ""}, "test"))
