"""Recipes: resolved with their defaults, overridden by key, and refused with the nearest key."""

import re
from pathlib import Path

import pytest

from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.recipe.schema import (
    DataConfig,
    EarlyStoppingConfig,
    ModelConfig,
    Recipe,
    ReduceLROnPlateauConfig,
    TrainingConfig,
)


def own(tmp_path: Path, text: str = "") -> str:
    """The path of a recipe that holds `text`."""
    path = tmp_path / "own.toml"
    path.write_text(f'description = "mine"\n{text}')
    return str(path)


def test_a_recipe_takes_the_defaults_and_its_files_name(tmp_path: Path) -> None:
    recipe = config.load(own(tmp_path))
    assert recipe == Recipe("own", "mine", DataConfig(), ModelConfig(), TrainingConfig())
    assert recipe.search is None


@pytest.mark.parametrize("name", config.names())
def test_a_packaged_recipe_resolves_and_its_header_names_its_command(name: str) -> None:
    recipe = config.load(name)
    assert config.resolve(config.to_dict(recipe), "itself") == recipe
    assert bool(recipe.search) == (name in ("tuned-mlp", "smoke"))
    command = "make all" if name == "tuned-mlp" else f"make all RECIPE={name}"
    header = (config.RECIPES / f"{name}.toml").read_text().partition("description")[0]
    assert f"#   {command}\n" in header


def test_overrides_are_typed_by_toml(tmp_path: Path) -> None:
    overrides = [
        "training.batch_size=256",
        "training.learning_rate = 1e-2",
        "training.optimizer=sgd",
        'model.activation="tanh"',
        "model.hidden=[64, 32]",
        "model.dropout=[0.1, 0]",
        "model.batch_normalization=true",
        "training.early_stopping.patience=7",
    ]
    recipe = config.load(own(tmp_path), overrides)
    assert recipe.model == ModelConfig((64, 32), "tanh", batch_normalization=True, dropout=(0.1, 0.0))
    assert recipe.model.dropout_rates == (0.1, 0.0)
    stopping = EarlyStoppingConfig(patience=7)
    assert recipe.training == TrainingConfig(
        batch_size=256, learning_rate=0.01, optimizer="sgd", early_stopping=stopping
    )


def test_replace_sets_dotted_keys_and_checks_them(tmp_path: Path) -> None:
    recipe = config.load(own(tmp_path))
    replaced = config.replace(recipe, {"model.hidden": [8], "training.reduce_lr_on_plateau.factor": 0.1})
    assert replaced.model.hidden == (8,)
    assert replaced.training.reduce_lr_on_plateau == ReduceLROnPlateauConfig(factor=0.1)
    assert recipe.model.hidden == ModelConfig().hidden
    with pytest.raises(BadInput, match="best.json: training.learning_rate: .* greater than 0, not -1"):
        config.replace(recipe, {"training.learning_rate": -1}, "best.json")


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[trainig]\nepochs = 1", "trainig", "training"),
        ("[training]\nbatchsize = 1", "training.batchsize", "training.batch_size"),
        ("[training]\nbatch-size = 1", "training.batch-size", "training.batch_size"),
        ("[training]\nlerning_rate = 1", "training.lerning_rate", "training.learning_rate"),
        ("[model]\nhiden = [1]", "model.hiden", "model.hidden"),
        ("[data]\nsplit_sed = 1", "data.split_sed", "data.split_seed"),
        ("[training.early_stopping]\npatiense = 1", "training.early_stopping.patiense", "patience"),
        ("[search]\ntrails = 1\nspace = {}", "search.trails", "search.trials"),
        ('[search.space]\n"training.lr" = { min = 1, max = 2 }', "training.lr", "training.learning_rate"),
        ('[search.space]\n"model.hiden" = { values = [1] }', "model.hiden", "model.hidden"),
        ('[search.space]\n"model.layers" = { values = [1] }', "model.layers", "model.hidden"),
        ("[search.space]\nepochs = { values = [1] }", "epochs", "training.epochs"),
        (
            '[search.space]\n"model.l2" = { low = 0, max = 1 }',
            "search.space.model.l2.low",
            "search.space.model.l2.min",
        ),
        ("lr = 1", "lr", "training.learning_rate"),
        ("[training]\nlr = 1", "training.lr", "training.learning_rate"),
        ("batchsize = 1", "batchsize", "training.batch_size"),
        ("[model]\nlayers = 1", "model.layers", "model.hidden"),
        ("[model]\nunits_1 = 1", "model.units_1", "model.hidden"),
        ("[model]\nlearning_rate = 1", "model.learning_rate", "training.learning_rate"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path, text: str, key: str, nearest: str | None) -> None:
    with pytest.raises(BadInput) as caught:
        config.load(own(tmp_path, text))
    message = str(caught.value)
    assert f"unknown key '{key}'" in message
    assert "own.toml" in message
    if nearest:
        assert re.search(rf"did you mean '(\w+\.)*{nearest}'\?", message)


def test_of_a_key_of_two_sections_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'epochs'; did you mean 'training.epochs' or 'search.epochs'\\?"):
        config.load(own(tmp_path, "epochs = 3"))


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("model.activation", "swish", "'silu'"),
        ("training.optimizer", "adamw", "'adam' with training.weight_decay"),
        ("training.optimizer", "Adam", "'adam'"),
        ("data.split", "tuned_mlp", "'tuned-mlp'"),
        ("training.optimizer", "swish", None),
    ],
)
def test_a_value_that_others_call_otherwise_is_understood(
    tmp_path: Path, key: str, value: str, meant: str | None
) -> None:
    with pytest.raises(BadInput) as caught:
        config.load(own(tmp_path), [f"{key}={value}"])
    assert str(caught.value).endswith(f"not '{value}'" + (f"; did you mean {meant}?" if meant else ""))


def test_all_errors_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    text = """
lr = 1
[model]
hidden = 5
dropout = [0.1, 2]
[training]
epochs = 0
l1_decay = [0.1, -1]
[search.space]
"model.layers" = { values = [1] }
"training.lr" = { min = 2, max = 1 }
"""
    with pytest.raises(BadInput) as caught:
        config.load(own(tmp_path, text))
    message = str(caught.value)
    assert message.startswith(f"recipe {tmp_path}/own.toml: 8 errors: (1) ")
    for said in (
        "model.hidden: Input should be a list, not 5 (",
        "model.dropout.1: Input should be less than 1, not 2 (",
        "training.epochs: Input should be greater than 0, not 0 (",
        "training.l1_decay.1: Input should be greater than or equal to 0, not -1 (",
        "search.space names an unknown key 'model.layers'; did you mean 'model.hidden'? (",
        "search.space names an unknown key 'training.lr'; did you mean 'training.learning_rate'? (",
        "search.space.training.lr: min 2.0 is not below max 1.0",
        "unknown key 'lr'; did you mean 'training.learning_rate'?",
    ):
        assert said in message
    assert len(message.splitlines()) == 1


def test_values_that_do_not_fit_each_other_are_told_beside_other_errors(tmp_path: Path) -> None:
    text = """
[model]
hidden = [8, 8]
dropout = [0.1]
l2 = -1
[training]
l1_decay = [1]
l1_locality = 1
epochs = 0
[search]
oracle = "asha"
prune = "median"
trials = 0
[search.space]
"training.learning_rate" = { min = 0, foo = 1 }
"""
    with pytest.raises(BadInput) as caught:
        config.load(own(tmp_path, text))
    # What only follows from an error, such as a space without a form, is none.
    assert str(caught.value) == (
        f"recipe {tmp_path}/own.toml: 7 errors: (1) model.l2: Input should be greater than or equal to 0, not -1 "
        "(2) training.epochs: Input should be greater than 0, not 0 "
        "(3) unknown key 'search.space.training.learning_rate.foo' "
        "(4) search.trials: Input should be greater than 0, not 0 (5) model: dropout lists 1 rates for 2 hidden layers "
        "(6) search: prune is for random and bayesian; leave it out with asha, which promotes trials "
        "(7) training.l1_decay lists 1 rates for 3 dense layers, the output's too"
    )


def test_what_is_compared_with_a_wrong_value_is_not_told(tmp_path: Path) -> None:
    text = "[model]\nhidden = [8, 8, -8]\ndropout = [0.1, 0.1, 0.1]\n[training]\nl1_decay = [1, 1, 1, 1]"
    with pytest.raises(BadInput, match="own.toml: model.hidden.2: Input should be greater than 0, not -8$"):
        config.load(own(tmp_path, text))


def test_of_many_errors_the_first_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        config.load(own(tmp_path, "\n".join(f"key{number} = 1" for number in range(500))))
    assert "500 errors: (1) unknown key 'key0' (2) unknown key 'key1'" in str(caught.value)
    assert str(caught.value).endswith(" and 490 more")


def test_a_recipe_needs_no_description(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("")
    assert config.load(str(tmp_path / "own.toml")).description == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepochs = 0", "training.epochs: Input should be greater than 0, not 0"),
        ("[training]\nepochs = 'x'", "training.epochs: Input should be a valid integer, not 'x'$"),
        ("[training]\nepochs = 1.5", "training.epochs: Input should be a valid integer, not 1.5$"),
        ("[search]\ntrials = 1", "search.space: it is missing$"),
        ("[training]\nlearning_rate = inf", "training.learning_rate: Input should be a finite number"),
        ('[training]\noptimizer = "adamw"', "training.optimizer: Input should be 'sgd', 'adam'"),
        ("[training]\nema_momentum = 1.0", "training.ema_momentum: Input should be less than 1"),
        ("[model]\nhidden = { a = 1 }", "model.hidden: Input should be a list$"),
        (
            '[search.space]\n"model.hidden" = { layers = [1, 2, 3], units = [8] }',
            "layers: List should have at most 2 items, not 3$",
        ),
        (
            '[search.space]\n"model.hidden" = { layers = [1], units = [8] }',
            r"layers: .* a list of more items, not \[1\]$",
        ),
        ('[search.space]\n"model.hidden" = { min = 1, max = 2 }', "search.space: model.hidden needs layers and units"),
        (
            '[search.space]\n"model.l2" = { layers = [1, 2], units = [8] }',
            "units are for model.hidden, not for model.l2",
        ),
        ('[search.space]\n"training.epochs" = { values = [1] }', "search.space: a trial is as long as search.epochs"),
        (
            "[search.space]\ntraining.learning_rate = { min = 0.1, max = 1 }",
            'own.toml: search.space: write keys of training in quotes, as in "training.NAME" = { values = ',
        ),
        ('[search.space]\n"a-b" = { min = 1, max = 2 }\n"c-d" = { min = 1, max = 2 }', "2 errors: .*'a-b' .*'c-d'$"),
        ("[model]\nhidden = [32, -1]", "model.hidden.1: Input should be greater than 0, not -1"),
        ("[model]\nhidden = [8]\ndropout = [0.1, 0.2]", "model: dropout lists 2 rates for 1 hidden layers"),
        (
            "[model]\nhidden = []\nreceptive_field = 2.0",
            "model: receptive_field is of the first hidden layer, and hidden",
        ),
        ("[model]\nreceptive_field = 0.01", "model.receptive_field: Input should be greater than or equal to 0.5"),
        ("[model]\nlocal_contrast = 1e200", "model.local_contrast: Input should be less than or equal to 28"),
        ("[model]\nwhitening = 1e200", "model.whitening: Input should be less than or equal to 100"),
        ("[model]\ndropout = 1.5", "model.dropout: Input should be less than 1, not 1.5"),
        (
            "[training.one_cycle]\n[training.reduce_lr_on_plateau]",
            "training: one_cycle and reduce_lr_on_plateau both set the learning rate",
        ),
        (
            '[data]\nsplit = "none"\n[training.early_stopping]',
            'training.early_stopping goes by validation images; leave it out, or data.split = "none"',
        ),
        ('[data]\nsplit = "none"\n[search.space]', "search goes by validation images"),
        ("[model]\nhidden = [8]\n[training]\nl1_decay = [0.1]", "training.l1_decay lists 1 rates for 2 dense layers"),
        ("[training.augment]\nuntil = 0.0", "training.augment.until: Input should be greater than 0, not 0"),
        (
            "[training]\nl1_decay = 0.1\nl1_locality = 4",
            "training.l1_locality is of training.l1_decay around model.rec",
        ),
        ("[training]\nl1_decay = [0.1, -1]", "training.l1_decay.1: Input should be greater than or equal to 0, not -1"),
        ("training = 5", "training: Input should be a section, not 5"),
        ('name = "other"', "the key 'name' is taken from the file's name"),
        ("[search]\ntrials = 3", "search.space: "),
        ('[search.space]\n"model.l2" = { min = 1, max = 0 }', "search.space.model.l2: min 1.0 is not below max 0.0"),
        ('[search.space]\n"model.l2" = { min = 0, max = 1, sampling = "log" }', "needs min above 0"),
        ('[search.space]\n"model.l2" = { min = 0 }', "give either values, or min and max, or layers and units"),
        ('[search.space]\n"model.l2" = { values = [0.1], max = 1 }', "give either values, or min and max"),
        ('[search.space]\n"model.l2" = { values = [] }', "search.space.model.l2.values: "),
        (
            '[search.space]\n"model.l2" = { values = [[1]] }',
            "search.space.model.l2.values.0: .* text or .* number, not ",
        ),
        (
            '[search.space]\n"model.hidden" = { layers = [3, 1], units = [8] }',
            r"layers \[3, 1\] is not \[fewest, most\]",
        ),
        ('[search.space]\n"model.l2" = { values = [0.1, -1] }', "search.space: model.l2: .* not -1"),
        (
            '[search.space]\n"data.split" = { values = [1] }',
            "search.space names data.split, but only keys of model and",
        ),
        ("[training]\nbatch_size = true", "training.batch_size: Input should be a number, not true$"),
        ("[model]\ndropout = false", "model.dropout: Input should be a number or a list, not false$"),
        ("[model]\ndropout = [0.1, false]", "model.dropout.1: Input should be a number, not false$"),
        ('[search.space]\n"training.batch_size" = { values = [true, 2] }', "batch_size: .* a number, not true$"),
        ('[search.space]\n"model.l2" = { min = false, max = 1 }', "model.l2.min: Input should be a number, not false$"),
        ("training.optimizer = [true, 1, 'a']", r"optimizer: .*, not \[true, 1, 'a'\]$"),
        ("training.optimizer = [{ a = true }]", r"optimizer: .*, not \[\{a = true\}\]$"),
        ("training.optimizer = 2020-01-01", "optimizer: .*, not 2020-01-01$"),
        ("[training", "is not valid TOML"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        config.load(own(tmp_path, text))
    assert "own.toml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_of_the_space_is_overridden_in_quotes() -> None:
    recipe = config.load("tuned-mlp", ['search.space."training.learning_rate".max=0.5'])
    assert recipe.require_search().space["training.learning_rate"].max == 0.5


def test_a_setting_without_a_value_is_told_as_json_has_it() -> None:
    settings = config.to_dict(config.load("smoke"))
    settings["training"]["epochs"] = None
    said = (
        "^config.json: training.epochs: Input should be a valid integer, not null; if another version of fmnist wrote"
    )
    with pytest.raises(BadInput, match=said):
        config.recorded(settings, "config.json")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "write key=value"),
        ("training.epoch=2", "unknown key 'training.epoch'; did you mean 'training.epochs'"),
        ("training.epochs=two", "training.epochs: .* not 'two'"),
        ("training.batch_size=true", "training.batch_size: Input should be a number, not true$"),
        ("training.learning_rate=false", "training.learning_rate: Input should be a number, not false$"),
        ("training.ema_momentum=true", "training.ema_momentum: Input should be a number, not true$"),
        ("search.space.training.lr.min=1", "search.space: write keys of training in quotes"),
        ("description.length=2", "description.length: 'description' is a value, not a section"),
        ("name=other", "the key 'name' is taken"),
        (f"data.split_seed={2**32}", "data.split_seed: .* less than or equal to 4294967295"),
        ("=2", "unknown key ''"),
    ],
)
def test_an_override_that_cannot_be_used_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        config.load(own(tmp_path), [override])


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown recipe 'tuned_mlp'; did you mean 'tuned-mlp'.; known: .*smoke"):
        config.load("tuned_mlp")
    with pytest.raises(BadInput, match="none.toml: No such file or directory; name another with --recipe"):
        config.load(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="binary.toml"):
        config.load(str(tmp_path / "binary.toml"))
