import json
from pathlib import Path
from typing import Any

import pytest
from searching import recipe

from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
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


def test_a_recipe_without_a_search_is_refused() -> None:
    with pytest.raises(BadInput, match="fixed"):
        space.hyperparameters(config.resolve({"name": "fixed", "description": ""}, "test"))


MIXED = {
    "training.l1_decay": {"values": [0, 0.5]},
    "training.batch_size": {"values": [16, 32.0, "64", 32]},
    "model.batch_normalization": {"values": [True, 0]},
    "model.dropout": {"values": [0, "0.25"]},
    "model.whitening": {"min": 1, "max": 2},
    "model.l2": {"values": [0.0, 0]},
    "model.square_root": {"values": ["true"]},
    "model.activation": {"values": ["relu"]},
    "model.hidden": {"layers": [2, 2], "units": [16, 16]},
    "training.ema_momentum": {"min": 0, "max": 0.9},
    "training.augment.shift": {"min": 0, "max": 2},
    "training.early_stopping.patience": {"values": [2, 3.0]},
    "training.learning_rate": {"min": 0.1, "max": 0.10000000000000002, "sampling": "log"},
    "training.weight_decay": {"min": 1, "max": 2, "sampling": "log"},
}


def test_a_space_has_one_reading_each_value_of_its_keys_type(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import api as hparams

    from fmnist.search import trial as trials

    of = recipe(space=MIXED, epochs=20)
    read = config.space(of)
    assert read["training.l1_decay"].values == (0.0, 0.5)
    assert read["training.batch_size"].values == (16, 32, 64)
    assert read["model.batch_normalization"].values == (True, False)
    assert read["model.dropout"].values == (0.0, 0.25)
    assert read["model.l2"].values == (0.0,)
    assert read["model.square_root"].values == (True,)
    assert read["training.early_stopping.patience"].values == (2, 3)
    for domain in read.values():
        assert len({type(value) for value in domain.values or (domain.min, domain.max)}) == 1
    assert type(read["model.whitening"].min) is float
    assert type(read["training.augment.shift"].max) is int

    for oracle in "random", "bayesian", "hyperband", "asha":
        for values in samples(config.replace(of, {"search.oracle": oracle}), 20):
            # As the values reach workers and come back from tables.
            assert json.loads(json.dumps(values)) == values
            trial = config.replace(of, values)
            assert trial.model.hidden == (16, 16)
            for key, value in values.items():
                found = config._get(trial, key)
                assert (found, type(found)) == (value, type(value)) or key == "model.hidden"
            hparams.hparams_pb({name: trials._scalar(value) for name, value in values.items()})


REFUSED = {
    "a fraction for an integer": ({"training.batch_size": {"min": 1.5, "max": 8}}, "training.batch_size: .*integer"),
    "fractions among integers": ({"training.batch_size": {"values": [16, 32.5]}}, "training.batch_size: .*32.5"),
    "a word": ({"training.batch_size": {"values": [32, "many"]}}, "training.batch_size: .*'many'"),
    "a range of words": ({"model.activation": {"min": 0, "max": 1}}, "model.activation: "),
    "a range of true and false": ({"model.square_root": {"min": 0, "max": 1}}, "model.square_root is true or false"),
    "lists": ({"model.dropout": {"values": [[0.1, 0.2], [0.2, 0.3]]}}, "model.dropout"),
    "too large": ({"training.batch_size": {"values": [2**53 + 1, 16]}}, r"9007199254740993 is too large"),
    "too large a range": ({"training.batch_size": {"min": 1, "max": 2**60}}, "is too large"),
    "too wide": ({"training.learning_rate": {"min": 1e-300, "max": 1e300, "sampling": "log"}}, "too far apart"),
    "beyond doubles": ({"training.learning_rate": {"values": [10**400]}}, "training.learning_rate"),
    "a range beyond doubles": ({"training.learning_rate": {"min": 1, "max": 10**400}}, "training.learning_rate"),
    "an integer beyond doubles": ({"training.batch_size": {"values": [10**400]}}, "training.batch_size"),
    "infinite": ({"training.learning_rate": {"min": 1e-3, "max": float("inf")}}, "learning_rate.max: .*finite"),
    "out of range": ({"model.dropout": {"values": [0, 1]}}, "model.dropout: .*less than 1"),
    "a range out of range": ({"training.learning_rate": {"min": -1.0, "max": 1.0}}, "training.learning_rate"),
    "an unknown word": ({"training.optimizer": {"values": ["adam", "adan"]}}, "training.optimizer: .*'adan'"),
    "numbers for a list": ({"model.hidden": {"values": [32, 64]}}, "model.hidden"),
    "layers of a rate": ({"model.dropout": {"layers": [1, 2], "units": [3]}}, "model.dropout"),
    "a table": ({"training.augment": {"values": [0, 1]}}, "unknown key 'training.augment'; did you mean"),
    "the epochs": ({"training.epochs": {"values": [2, 3]}}, "search.epochs says; leave out training.epochs"),
    "the name": ({"name": {"values": ["a", "b"]}}, "search.space names name, but only"),
    "the search": ({"search.trials": {"values": [2, 3]}}, "search.space names search.trials, but only"),
    "the data": ({"data.split_seed": {"values": [2, 3]}}, "search.space names data.split_seed, but only"),
    "a rate a layer": (
        {"model.dropout": {"values": [0.1, 0.2]}, "training.l1_locality": {"values": [0, 1]}},
        "training.l1_locality is of training.l1_decay",
    ),
    "two keys together": (
        {
            "model.receptive_field": {"values": [1, 2]},
            "training.l1_decay": {"values": [0.1, 0]},
            "training.l1_locality": {"values": [0, 1]},
        },
        "training.l1_locality is of training.l1_decay",
    ),
    "nothing": ({"training.batch_size": {"values": []}}, "training.batch_size.values"),
}


@pytest.mark.parametrize(("bad", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_space_is_refused_in_one_line_before_the_search(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        space.hyperparameters(recipe(space=bad))
    assert "\n" not in str(caught.value)
