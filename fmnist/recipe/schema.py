"""Define what a recipe may say, as frozen dataclasses that check their values.

`python -m tools.recipe_keys` makes the reference in docs/recipes.md from the types, ranges and defaults, and from the
lines `key (unit): meaning` of the docstrings.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from fmnist.errors import BadInput
from fmnist.text import shorten

MOST_SEED = 2**32 - 1
"""The largest seed that NumPy, scikit-learn and Keras all take."""

MOST_TRIALS = 10**5
"""The most trials of a search: the chief has all of them in memory."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

# The memory and time of difflib grow with the square of a word's length.
_LONGEST_WORD = 200
_MOST_MEANT = 2  # keys that a message names

# What other programs and people call it, of the last part of a key: no likeness of letters finds these.
_ALSO_CALLED = {
    **dict.fromkeys(("layers", "units", "neurons", "width", "hidden_layers", "hidden_units", "layer_sizes"), "hidden"),
    **dict.fromkeys(("bn", "batchnorm", "batch_norm"), "batch_normalization"),
    **dict.fromkeys(("init", "initializer", "kernel_init"), "kernel_initializer"),
    **dict.fromkeys(("nonlinearity", "act"), "activation"),
    **dict.fromkeys(("lr", "eta", "step_size"), "learning_rate"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("ema", "momentum"), "ema_momentum"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("max_trials", "n_trials"), "trials"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs"), "epochs"),
    **dict.fromkeys(("tuner", "algorithm"), "oracle"),
    **dict.fromkeys(("metric", "goal"), "objective"),
    **dict.fromkeys(("low", "lower", "from"), "min"),
    **dict.fromkeys(("high", "upper", "to"), "max"),
    **dict.fromkeys(("choices", "choice", "options"), "values"),
    **dict.fromkeys(("scale", "log", "distribution"), "sampling"),
    "zca": "whitening",
}
_VALUES_ALSO_CALLED = {
    "swish": "'silu'",
    "adamw": "'adam' with training.weight_decay",
    "xavier": "'glorot_uniform'",
    "xavier_uniform": "'glorot_uniform'",
    "he": "'he_normal'",
    "kaiming": "'he_normal'",
    "bayes": "'bayesian'",
    "random_search": "'random'",
    "accuracy": "'val_accuracy'",
    "loss": "'val_loss'",
}

CLASSES = 10
IMAGE_SHAPE = (28, 28)


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A validator that refuses numbers above `most`; its message names both."""

    most: int

    def __call__(self, value: int) -> int:
        """Return `value`; raise ValueError if it is too large."""
        if value > self.most:
            raise ValueError(f"{value} is too large; at most {self.most:,}")
        return value


def _number(value: Any) -> Any:
    """Return `value`; refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


def _conflict(message: str, *keys: str) -> PydanticCustomError:
    """Return the error that the values of dotted keys exclude each other; the first key is the one to change."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "keys": keys})


_NUMBER = BeforeValidator(_number)
# Larger numbers would fit no machine and no table. Layers also have seeds of their own, of which a step has 500.
Units = Annotated[int, Field(gt=0), AfterValidator(AtMost(10**6)), _NUMBER]
Layers = Annotated[int, Field(gt=0), AfterValidator(AtMost(100)), _NUMBER]
Positive = Annotated[int, Field(gt=0), AfterValidator(AtMost(10**7)), _NUMBER]
Text = Annotated[str, Field(max_length=1000)]
NonNegative = Annotated[float, Field(ge=0), _NUMBER]
Fraction = Annotated[float, Field(ge=0, lt=1), _NUMBER]
Monitor = Literal["val_loss", "val_accuracy"]


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The images to train on, and those to hold back for validation.

    split: which images are held back: 6,000 (`tuned-mlp`) or 5,000 (`regularized-mlp`), stratified by class; `none`
        trains on all 60,000, for when everything else has been chosen.
    split_seed: the seed of the split; it is independent of the run's seed.
    train_limit (images): the maximum number of training images, stratified by class; all that are not held back if not
        set.
    """

    split: Literal["tuned-mlp", "regularized-mlp", "none"] = "tuned-mlp"
    split_seed: Annotated[int, Field(ge=0, le=MOST_SEED), _NUMBER] = 0
    train_limit: Positive | None = None

    @property
    def validation(self) -> str:
        """The held-back images as text: equal texts mean the same images."""
        return self.split if self.split == "none" else f"{self.split}, split_seed {self.split_seed}"


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """A multilayer perceptron. A hidden layer is dense, batch normalisation, activation and dropout, in this order.

    hidden (units): the width of each hidden layer, from input to output; `[]` is a linear classifier.
    activation: the activation function of the hidden layers.
    kernel_initializer: how the initial weights are drawn, by its Keras name.
    batch_normalization: whether batch normalisation follows each hidden dense layer, which then has no bias.
    dropout (share of units): the dropout rate after each hidden layer: one rate for all, or a list with one for each.
    l2 (times the sum of squares): the L2 penalty that the weights of each dense layer add to the loss.
    square_root: whether the pixels, scaled to 0..1, are replaced by their square roots, which brightens dark areas.
    whitening (pixel value, from 0 to 1): the damping of a fixed layer that decorrelates the pixels (ZCA); no such layer
        if not set.
    local_contrast (pixels): the size of a Gaussian window around each pixel. After the whitening, if there is one, the
        pixel is divided by the root mean square of that window, which brings out faint details; not if not set.
    receptive_field (pixels): the size of a Gaussian window over the initial weights of each unit of the first hidden
        layer, with a random centre for each unit; no windows if not set.
    """

    hidden: Annotated[tuple[Units, ...], Field(max_length=100)] = (256, 128)
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    kernel_initializer: Literal["glorot_uniform", "he_normal", "he_uniform", "lecun_normal"] = "glorot_uniform"
    batch_normalization: bool = False
    dropout: Fraction | tuple[Fraction, ...] = 0.0
    l2: NonNegative = 0.0
    square_root: bool = False
    whitening: Annotated[float, Field(gt=0, le=100), _NUMBER] | None = None
    local_contrast: Annotated[float, Field(ge=0.5, le=28), _NUMBER] | None = None
    receptive_field: Annotated[float, Field(ge=0.5, le=28), _NUMBER] | None = None

    @model_validator(mode="after")
    def _a_layer_for_the_receptive_fields(self) -> "ModelConfig":
        if self.receptive_field is not None and not self.hidden:
            raise _conflict(
                "receptive_field is of the first hidden layer, and hidden has none",
                "model.receptive_field",
                "model.hidden",
            )
        return self

    @model_validator(mode="after")
    def _one_dropout_a_layer(self) -> "ModelConfig":
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden):
            raise _conflict(
                f"dropout lists {len(self.dropout)} rates for {len(self.hidden)} hidden layers",
                "model.dropout",
                "model.hidden",
            )
        return self

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """The dropout rate after each hidden layer."""
        if isinstance(self.dropout, tuple):
            return self.dropout
        return (self.dropout,) * len(self.hidden)


@dataclass(frozen=True, config=_STRICT)
class EarlyStoppingConfig:
    """Early stopping: training ends after `patience` epochs without improvement, and the best epoch's weights are kept.

    monitor: the metric that has to improve.
    patience (epochs): how long to wait for an improvement.
    """

    monitor: Monitor = "val_loss"
    patience: Positive = 5


@dataclass(frozen=True, config=_STRICT)
class ReduceLROnPlateauConfig:
    """A learning rate that is multiplied by `factor` after `patience` epochs without improvement.

    monitor: the metric that has to improve.
    factor: what the learning rate is multiplied by.
    patience (epochs): how long to wait for an improvement.
    min_lr: the lower bound of the learning rate.
    """

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1), _NUMBER] = 0.5
    patience: Positive = 3
    min_lr: NonNegative = 0.0


@dataclass(frozen=True, config=_STRICT)
class OneCycleConfig:
    """A learning rate that rises linearly to `learning_rate`, then falls to 0 along a cosine.

    warmup (share of all steps): how long the learning rate rises.
    """

    warmup: Fraction = 0.2


@dataclass(frozen=True, config=_STRICT)
class AugmentConfig:
    """Random changes to the training images, drawn again in each epoch; all are off by default.

    shift (pixels): the largest shift of an image along each axis; pixels that move in are black.
    flip: whether each image is mirrored left to right with probability 1/2.
    deform (pixels): how far smooth random fields move the pixels of each image, in root mean square: the image as a
        whole, stretched, sheared and bent.
    until (share of the epochs): when shifts and deformations end, so that images in the last epochs are placed as in
        the test set (Touvron et al. 2019); flips continue.
    """

    shift: Annotated[int, Field(ge=0, lt=28), _NUMBER] = 0
    flip: bool = False
    deform: Annotated[float, Field(ge=0, le=5), _NUMBER] = 0.0
    until: Annotated[float, Field(gt=0, le=1), _NUMBER] = 1.0


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """A training with a Keras optimizer.

    epochs (epochs): the maximum number of epochs; a search has its own, `search.epochs`.
    batch_size (images): the number of images in a step.
    optimizer: the optimizer, by its Keras name.
    learning_rate: the learning rate; with `one_cycle`, its peak.
    weight_decay (times the learning rate, each step): the decoupled weight decay of the optimizer.
    l1_decay (times the learning rate, each step): what every weight of a dense layer loses in absolute value, down to
        0: one number for all layers, or a list with one for each, the output layer last. The averages that
        `ema_momentum` keeps approach 0 but do not reach it.
    l1_locality: makes the first layer's `l1_decay` grow with a weight's distance d from the centre of its unit's
        receptive field: it is multiplied by `1 + l1_locality * (1 - exp(-d**2 / (8 * s**2)))`, where s is the standard
        deviation of the window.
    ema_momentum: the momentum of an exponential moving average of the weights, which becomes the final model; no
        average if not set.
    """

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Literal["sgd", "adam", "adagrad", "nadam", "adadelta", "rmsprop"] = "adam"
    learning_rate: Annotated[float, Field(gt=0), _NUMBER] = 1e-3
    weight_decay: NonNegative = 0.0
    l1_decay: NonNegative | tuple[NonNegative, ...] = 0.0
    l1_locality: NonNegative = 0.0
    ema_momentum: Fraction | None = None
    augment: AugmentConfig = AugmentConfig()
    one_cycle: OneCycleConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    reduce_lr_on_plateau: ReduceLROnPlateauConfig | None = None

    @model_validator(mode="after")
    def _one_schedule(self) -> "TrainingConfig":
        if self.one_cycle and self.reduce_lr_on_plateau:
            raise _conflict(
                "one_cycle and reduce_lr_on_plateau both set the learning rate; leave one of them out",
                "training.one_cycle",
                "training.reduce_lr_on_plateau",
            )
        return self

    def l1_decays(self, layers: int) -> tuple[float, ...]:
        """Return the L1 decay of each of the model's dense layers, of which there are `layers`."""
        return self.l1_decay if isinstance(self.l1_decay, tuple) else (self.l1_decay,) * layers


@dataclass(frozen=True, config=_STRICT)
class SpaceConfig:
    """The values that one key may take: `values`, a range `min`..`max`, or (for `model.hidden`) `layers` of `units`.

    values: the values to choose from.
    min: the smallest value of a range.
    max: the largest value of a range.
    sampling: whether values are uniform over a range, or uniform over its logarithm.
    layers (layers): the smallest and the largest number of hidden layers.
    units (units): the widths to choose from, for each layer.
    """

    values: Annotated[tuple[Text | bool | int | float, ...], Field(min_length=1, max_length=1000)] | None = None
    min: Annotated[float, _NUMBER] | None = None
    max: Annotated[float, _NUMBER] | None = None
    sampling: Literal["linear", "log"] = "linear"
    layers: tuple[Layers, Layers] | None = None
    units: Annotated[tuple[Units, ...], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "SpaceConfig":
        given = {name for name, value in vars(self).items() if name != "sampling" and value is not None}
        if given not in ({"values"}, {"min", "max"}, {"layers", "units"}):
            raise ValueError("give either values, or min and max, or layers and units")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min {self.min} is not below max {self.max}")
        if self.min is not None and self.min <= 0 and self.sampling == "log":
            raise ValueError("sampling = 'log' needs min above 0")
        if self.layers is not None and self.layers[0] > self.layers[1]:
            raise ValueError(f"layers {list(self.layers)} is not [fewest, most]")
        return self


def _searchable(key: str) -> str:
    """Return a key that a search may vary; raise ValueError for any other."""
    known = [leaf for leaf in leaves() if leaf.startswith(("model.", "training."))]
    if key == "training.epochs":
        raise ValueError(f"search.space: a trial is as long as search.epochs says; leave out {key}")
    if key in known:
        return key
    if key in leaves():
        raise ValueError(f"search.space names {key}, but only keys of model and training can be searched")
    if key in ("model", "training"):
        # TOML reads a dotted key without quotes as sections within each other.
        raise PydanticCustomError(
            "section", f'search.space: write keys of {key} in quotes, as in "{key}.NAME" = {{ values = [...] }}'
        )
    raise ValueError(f"search.space names an unknown key {shorten(repr(key))}{nearest(key, known)}")


@dataclass(frozen=True, config=_STRICT)
class SearchConfig:
    """A Keras Tuner search.

    space: a table with the values to try for each key that is searched.
    oracle: the algorithm that chooses the trials: `asha` (asynchronous successive halving), or one of Keras Tuner.
    objective: the metric by which trials are compared.
    trials (trials): the total number of trials; with `hyperband` and `asha`, a configuration is a new trial each time
        that it continues.
    epochs (epochs): how long a trial trains; with `hyperband` and `asha`, the longest trials.
    min_epochs (epochs): how long the shortest trials of `hyperband` and `asha` train.
    reduction_factor: with `hyperband` and `asha`, one trial in so many continues, and for so many times the epochs.
    brackets (brackets): with `hyperband` and `asha`, how many brackets share the trials: the first one begins with the
        shortest trials, each further one with longer ones; if it is not set, all for `hyperband` and one for `asha`.
    prune: whether trials end early that are not worth further epochs; `median` (with `random` and `bayesian`): after an
        epoch in which a trial's best value is worse than the median of the others' means up to there.
    max_retries_per_trial (retries): how often a failed trial is tried again.
    """

    space: dict[Annotated[str, AfterValidator(_searchable)], SpaceConfig]
    oracle: Literal["random", "bayesian", "hyperband", "asha"] = "random"
    objective: Monitor = "val_accuracy"
    trials: Annotated[int, Field(gt=0), AfterValidator(AtMost(MOST_TRIALS)), _NUMBER] = 10
    epochs: Positive = 10
    min_epochs: Positive = 1
    reduction_factor: Annotated[int, Field(ge=2, le=100), _NUMBER] = 3
    brackets: Annotated[int, Field(ge=1, le=100), _NUMBER] | None = None
    prune: Literal["median"] | None = None
    max_retries_per_trial: Annotated[int, Field(ge=0, le=1000), _NUMBER] = 0

    @field_validator("space")
    @classmethod
    def _layers_of_units(cls, space: dict[str, SpaceConfig]) -> dict[str, SpaceConfig]:
        for key, choices in space.items():
            if (key == "model.hidden") != (choices.layers is not None):
                raise ValueError(
                    "model.hidden needs layers and units, in place of values, min and max"
                    if key == "model.hidden"
                    else f"layers and units are for model.hidden, not for {key}"
                )
        return space

    @model_validator(mode="after")
    def _halves_what_it_can(self) -> "SearchConfig":
        if self.min_epochs > self.epochs:
            raise _conflict(
                f"min_epochs {self.min_epochs} is above epochs {self.epochs}", "search.min_epochs", "search.epochs"
            )
        for field in dataclasses.fields(self):
            halving = field.name in ("min_epochs", "reduction_factor", "brackets")
            if halving and getattr(self, field.name) != field.default and self.oracle not in ("hyperband", "asha"):
                raise _conflict(
                    f"{field.name} is for hyperband and asha; leave it out with {self.oracle}",
                    f"search.{field.name}",
                    "search.oracle",
                )
        if self.prune and self.oracle not in ("random", "bayesian"):
            raise _conflict(
                f"prune is for random and bayesian; leave it out with {self.oracle}, which promotes trials",
                "search.prune",
                "search.oracle",
            )
        return self


@dataclass(frozen=True, config=_STRICT)
class ReferenceConfig:
    """The figures that the recipe's origin reported, for comparison in the report.

    train_accuracy: the accuracy on the training images.
    validation_accuracy: the accuracy on the validation images.
    test_accuracy: the accuracy on the test images.
    macro_precision: the mean precision over the classes, on the test images.
    macro_recall: the mean recall over the classes, on the test images.
    """

    train_accuracy: Fraction | None = None
    validation_accuracy: Fraction | None = None
    test_accuracy: Fraction | None = None
    macro_precision: Fraction | None = None
    macro_recall: Fraction | None = None


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """A resolved recipe. Without `search` it is fixed: `tune` has nothing to do, and `train` uses it as it is.

    name: the file's name without `.toml`; the file does not contain it.
    description: one line of text, shown in reports.
    """

    name: Text
    description: Text = ""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig | None = None
    reference: ReferenceConfig | None = None

    @model_validator(mode="after")
    def _one_l1_decay_a_layer(self) -> "Recipe":
        layers = len(self.model.hidden) + 1
        if len(rates := self.training.l1_decays(layers)) != layers:
            raise _conflict(
                f"training.l1_decay lists {len(rates)} rates for {layers} dense layers, the output's too",
                "training.l1_decay",
                "model.hidden",
            )
        return self

    @model_validator(mode="after")
    def _knows_what_is_far(self) -> "Recipe":
        first = self.training.l1_decays(len(self.model.hidden) + 1)[0]
        if self.training.l1_locality and not (first and self.model.receptive_field):
            raise _conflict(
                "training.l1_locality is of training.l1_decay around model.receptive_field; set both, or leave it out",
                "training.l1_locality",
                "training.l1_decay",
                "model.receptive_field",
            )
        return self

    @model_validator(mode="after")
    def _validates_where_it_must(self) -> "Recipe":
        needing = {
            "search": self.search,
            "training.early_stopping": self.training.early_stopping,
            "training.reduce_lr_on_plateau": self.training.reduce_lr_on_plateau,
        }
        for key, value in needing.items():
            if value and self.data.split == "none":
                raise _conflict(
                    f'{key} goes by validation images; leave it out, or data.split = "none"', key, "data.split"
                )
        return self

    def require_search(self) -> SearchConfig:
        """Return the search; raise BadInput if the recipe has none."""
        if self.search is None:
            raise BadInput(f"recipe {self.name} is fixed: it has no [search]; run `train` with it, or choose another")
        return self.search


def keys(kind: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys and sections of a recipe, but not those within `search.space`."""
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        options = () if get_origin(field.type) is dict else getattr(field.type, "__args__", (field.type,))
        for option in options:
            if dataclasses.is_dataclass(option):
                yield from keys(option, f"{prefix}{field.name}.")


def leaves() -> Sequence[str]:
    """Return the dotted names of all keys that hold a value, without the sections."""
    known = list(keys())
    return [key for key in known if not any(other.startswith(f"{key}.") for other in known)]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return what a message about an unknown word ends with: the known ones that were probably meant, if any."""
    meant = [repr(match) for match in _meant(word, known)[:_MOST_MEANT]]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def nearest_value(word: str, known: Sequence[str]) -> str:
    """Return the same for a value that is none of the known ones."""
    if called := _VALUES_ALSO_CALLED.get(word.lower()):
        # Its name in Keras; of another key's value it would mean nothing.
        return f"; did you mean {called}?" if called.split("'")[1] in known else ""
    return nearest(word.lower(), known)


def _meant(word: str, known: Sequence[str]) -> list[str]:
    if len(word) > _LONGEST_WORD:
        return []
    section, dot, name = word.rpartition(".")
    # `units_1` is a column of trials.csv.
    name = _ALSO_CALLED.get(re.sub(r"_\d+$", "", name), name)
    # Compare within the section first: a long, correct section must not outweigh a mistake in the last part.
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[:2] == (section, dot)}
    if name in siblings:
        return [siblings[name]]
    last = {key.rpartition(".")[2] for key in known}
    elsewhere = difflib.get_close_matches(name, last, n=1, cutoff=0.8)
    for found in (
        # A section, where a key of it is wanted.
        [key for key in known if key.startswith(f"{word}.")],
        [key for key in known if key.rpartition(".")[2] == name],
        [siblings[match] for match in difflib.get_close_matches(name, siblings, n=1, cutoff=0.8)],
        [key for key in known if key.rpartition(".")[2] in elsewhere],
        [siblings[match] for match in difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)],
        [] if siblings else difflib.get_close_matches(word, known, n=1, cutoff=0.8),
    ):
        if found:
            return found
    return []
