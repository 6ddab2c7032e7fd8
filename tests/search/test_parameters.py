"""How a trial's hyperparameters are told, and set again."""

import shlex

from fmnist.recipe import config
from fmnist.search import parameters

VALUES = {
    "training.optimizer": "adam",
    "training.learning_rate": 0.0017220592492767754,
    "model.batch_normalization": True,
    "training.batch_size": 64,
    "training.weight_decay": 1.2345e-05,
    "model.hidden": [512, 256],
}


def test_a_sentence_has_the_network_first() -> None:
    assert parameters.sentence(VALUES) == (
        "hidden=512-256 batch_normalization=True optimizer=adam learning_rate=0.00172 batch_size=64 "
        "weight_decay=1.23e-05"
    )


def test_the_options_set_exactly_these_values_and_fit_a_terminal() -> None:
    told = parameters.options(VALUES)
    assert max(map(len, told.splitlines())) < 80
    words = shlex.split(told.replace("\\\n", ""))
    assert all(word.startswith("--set=") for word in words)
    recipe = config.load("baseline-mlp", [word.removeprefix("--set=") for word in words])
    assert recipe == config.replace(config.load("baseline-mlp"), VALUES)


def test_a_row_of_the_table_has_its_layers_as_one_value() -> None:
    row = {
        "model.layers": "2",
        "model.units_1": "64",
        "model.units_2": "32",
        "model.units_3": "",
        "model.l2": "0.00123",
    }
    assert parameters.of_row(row, "model.hidden") == "64-32"
    assert parameters.of_row(row, "model.l2") == "0.00123"
    assert parameters.of_row({"model.hidden": "[64]"}, "model.hidden") == "[64]"
    assert parameters.of_row(row, "model.activation") == ""
