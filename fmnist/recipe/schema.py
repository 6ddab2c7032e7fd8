"""What a recipe may say: frozen dataclasses, checked as they are made.

`python -m tools.recipe_keys` makes the reference in docs/recipes.md: of types, ranges and defaults, and of the lines
`key (unit): meaning` of the docstrings.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from fmnist.errors import BadInput
from fmnist.text import shorten

MOST_SEED = 2**32 - 1
"""The largest seed that NumPy, scikit-learn and Keras all take."""

MOST_TRIALS = 10**5
"""Of a search: the chief writes their order anew at each trial's end."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

# difflib takes memory and time by the square of a length.
_LONGEST_WORD = 200

CLASSES = 10
IMAGE_SHAPE = (28, 28)


@dataclasses.dataclass(frozen=True)
class AtMost:
    """Refuses a number above `most`, by a message that names both."""

    most: int

    def __call__(self, value: int) -> int:
        """Return `value` if it is not too large."""
        if value > self.most:
            raise ValueError(f"{value} is too large; at most {self.most:,}")
        return value


# More would fit no machine, no table and no patience; each layer has random numbers of its own, 500 in all.
Units = Annotated[int, Field(gt=0), AfterValidator(AtMost(10**6))]
Layers = Annotated[int, Field(gt=0), AfterValidator(AtMost(100))]
Positive = Annotated[int, Field(gt=0), AfterValidator(AtMost(10**7))]
Text = Annotated[str, Field(max_length=1000)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Monitor = Literal["val_loss", "val_accuracy"]


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which images are trained on, and which are held back for validation.

    split: which images are held back: 6,000 (`tuned-mlp`) or 5,000 (`regularized-mlp`), drawn by class; `none` trains
        on all 60,000, once everything else is chosen.
    split_seed: the seed of that draw; it is not the run's seed.
    train_limit (images): the most images to train on, drawn by class; all that are not held back if it is not set.
    """

    split: Literal["tuned-mlp", "regularized-mlp", "none"] = "tuned-mlp"
    split_seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    train_limit: Positive | None = None

    @property
    def validation(self) -> str:
        """Which images are held back: the same ones where this is the same."""
        return self.split if self.split == "none" else f"{self.split}, split_seed {self.split_seed}"


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """A multilayer perceptron: dense, then batch normalisation, activation and dropout, for each hidden layer.

    hidden (units): the width of each hidden layer, the first one first; `[]` is a linear classifier.
    activation: the activation function of the hidden layers.
    kernel_initializer: how the initial weights are drawn, by its Keras name.
    batch_normalization: whether batch normalisation follows each hidden dense layer, which then has no bias.
    dropout (share of units): the dropout rate after each hidden layer: one for all, or a list of one for each.
    l2 (times the sum of squares): the L2 penalty that the weights of each dense layer add to the loss.
    square_root: whether the pixels, from 0 to 1, are replaced by their square roots, which brightens dark parts.
    whitening (pixel value, from 0 to 1): the damping of a fixed layer that decorrelates the pixels (ZCA); there is no
        such layer if it is not set.
    receptive_field (pixels): the size of a Gaussian window, around a place of its own, over the initial weights of each
        unit of the first hidden layer; no window if it is not set.
    """

    hidden: Annotated[tuple[Units, ...], Field(max_length=100)] = (256, 128)
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    kernel_initializer: Literal["glorot_uniform", "he_normal", "he_uniform", "lecun_normal"] = "glorot_uniform"
    batch_normalization: bool = False
    dropout: Fraction | tuple[Fraction, ...] = 0.0
    l2: NonNegative = 0.0
    square_root: bool = False
    whitening: Annotated[float, Field(gt=0)] | None = None
    receptive_field: Annotated[float, Field(ge=0.5)] | None = None

    @model_validator(mode="after")
    def _a_layer_for_the_receptive_fields(self) -> "ModelConfig":
        if self.receptive_field is not None and not self.hidden:
            raise ValueError("receptive_field is of the first hidden layer, and hidden has none")
        return self

    @model_validator(mode="after")
    def _one_dropout_a_layer(self) -> "ModelConfig":
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden):
            raise ValueError(f"dropout lists {len(self.dropout)} rates for {len(self.hidden)} hidden layers")
        return self

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """The dropout rate after each hidden layer."""
        if isinstance(self.dropout, tuple):
            return self.dropout
        return (self.dropout,) * len(self.hidden)


@dataclass(frozen=True, config=_STRICT)
class EarlyStoppingConfig:
    """End the training when `monitor` has not improved for `patience` epochs, and keep the best epoch's weights.

    monitor: what has to improve.
    patience (epochs): how long to wait for that.
    """

    monitor: Monitor = "val_loss"
    patience: Positive = 5


@dataclass(frozen=True, config=_STRICT)
class ReduceLROnPlateauConfig:
    """Multiply the learning rate by `factor` when `monitor` has not improved for `patience` epochs.

    monitor: what has to improve.
    factor: what the learning rate is multiplied by.
    patience (epochs): how long to wait for an improvement.
    min_lr: the learning rate below which it does not fall.
    """

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Positive = 3
    min_lr: NonNegative = 0.0


@dataclass(frozen=True, config=_STRICT)
class OneCycleConfig:
    """Raise the learning rate to `learning_rate`, then let it fall to 0 by a cosine.

    warmup (share of all steps): how long it rises.
    """

    warmup: Fraction = 0.2


@dataclass(frozen=True, config=_STRICT)
class AugmentConfig:
    """Random changes of the training images, drawn anew in each epoch; all of them are off by default.

    shift (pixels): the most that an image moves along each axis; what moves in is black.
    flip: whether each image is mirrored left to right with probability 1/2.
    until (share of the epochs): when shifts end, so that the last epochs see the images where those of the test are
        (Touvron et al. 2019); mirror images go on.
    """

    shift: Annotated[int, Field(ge=0, lt=28)] = 0
    flip: bool = False
    until: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """One training, by a Keras optimizer.

    epochs (epochs): the most epochs to train; a search has its own number, `search.epochs`.
    batch_size (images): how many images a step sees.
    optimizer: the optimizer, by its Keras name.
    learning_rate: the learning rate; with `one_cycle` its peak.
    weight_decay (times the learning rate, each step): the decoupled weight decay of the optimizer.
    l1_decay (times the learning rate, each step): what is taken off the size of every weight of a dense layer, down to
        0: one for all layers, or a list of one for each, the output layer's last. The averages that `ema_momentum`
        keeps come near 0, but do not reach it.
    l1_locality: makes `l1_decay` of the first layer grow with a weight's distance d from the centre of its unit's
        receptive field: times `1 + l1_locality * (1 - exp(-d**2 / (8 * s**2)))`, s being the window's standard
        deviation.
    ema_momentum: the momentum of an exponential moving average of the weights, which is the model that is kept; no
        average if it is not set.
    """

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Literal["sgd", "adam", "adagrad", "nadam", "adadelta", "rmsprop"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
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
            raise ValueError("one_cycle and reduce_lr_on_plateau both set the learning rate; leave one of them out")
        return self

    def l1_decays(self, layers: int) -> tuple[float, ...]:
        """Of each dense layer; `layers` is how many the model has."""
        return self.l1_decay if isinstance(self.l1_decay, tuple) else (self.l1_decay,) * layers


@dataclass(frozen=True, config=_STRICT)
class SpaceConfig:
    """The values that one key may take: `values`, a range `min`..`max`, or (for `model.hidden`) `layers` of `units`.

    values: the values to choose from.
    min: the least value of a range.
    max: the largest value of a range.
    sampling: whether a range is drawn from evenly, or evenly in its logarithm.
    layers (layers): the fewest and the most hidden layers.
    units (units): the widths to choose from, for each layer.
    """

    values: Annotated[tuple[Text | bool | int | float, ...], Field(min_length=1, max_length=1000)] | None = None
    min: float | None = None
    max: float | None = None
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


@dataclass(frozen=True, config=_STRICT)
class SearchConfig:
    """A Keras Tuner search.

    space: a table that gives the values of each key that is searched.
    oracle: what chooses the trials, by its Keras Tuner name.
    objective: what the trials are compared by.
    trials (trials): how many configurations to try in all.
    epochs (epochs): how long a trial trains; with `hyperband`, the longest.
    max_retries_per_trial (retries): how often a trial that fails is tried again.
    """

    space: dict[str, SpaceConfig]
    oracle: Literal["random", "bayesian", "hyperband"] = "random"
    objective: Monitor = "val_accuracy"
    trials: Annotated[int, Field(gt=0), AfterValidator(AtMost(MOST_TRIALS))] = 10
    epochs: Positive = 10
    max_retries_per_trial: Annotated[int, Field(ge=0, le=1000)] = 0


@dataclass(frozen=True, config=_STRICT)
class ReferenceConfig:
    """The figures that the recipe's origin reported, for the report to compare with.

    train_accuracy: on the training images.
    validation_accuracy: on the validation images.
    test_accuracy: on the test images.
    macro_precision: the mean precision of the classes, on the test images.
    macro_recall: the mean recall of the classes, on the test images.
    """

    train_accuracy: Fraction | None = None
    validation_accuracy: Fraction | None = None
    test_accuracy: Fraction | None = None
    macro_precision: Fraction | None = None
    macro_recall: Fraction | None = None


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """A resolved recipe. Without `search` it is fixed: `tune` has nothing to do and `train` uses it as it stands.

    name: the name of the file, without `.toml`; it is not written in it.
    description: one line for people, which reports show.
    """

    name: Text
    description: Text
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig | None = None
    reference: ReferenceConfig | None = None

    @model_validator(mode="after")
    def _searches_what_it_can(self) -> "Recipe":
        known = [key for key in leaves() if key.startswith(("model.", "training."))]
        for key in self.search.space if self.search else ():
            if key not in known:
                raise ValueError(f"search.space names an unknown key {shorten(repr(key))}{nearest(key, known)}")
        return self

    @model_validator(mode="after")
    def _one_l1_decay_a_layer(self) -> "Recipe":
        layers = len(self.model.hidden) + 1
        if len(rates := self.training.l1_decays(layers)) != layers:
            raise ValueError(f"training.l1_decay lists {len(rates)} rates for {layers} dense layers, the output's too")
        return self

    @model_validator(mode="after")
    def _knows_what_is_far(self) -> "Recipe":
        first = self.training.l1_decays(len(self.model.hidden) + 1)[0]
        if self.training.l1_locality and not (first and self.model.receptive_field):
            raise ValueError(
                "training.l1_locality is of training.l1_decay around model.receptive_field; set both, or leave it out"
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
                raise ValueError(f'{key} goes by validation images; leave it out, or data.split = "none"')
        return self

    def require_search(self) -> SearchConfig:
        """What is searched; raises BadInput if nothing is."""
        if self.search is None:
            raise BadInput(f"recipe {self.name} is fixed: it has no [search]; run `train` with it, or choose another")
        return self.search


def keys(kind: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """The dotted names of all that a recipe may say."""
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        for option in getattr(field.type, "__args__", (field.type,)):
            if dataclasses.is_dataclass(option):
                yield from keys(option, f"{prefix}{field.name}.")


def leaves() -> Sequence[str]:
    """Of `keys`, those that have a value, and no keys of their own."""
    known = list(keys())
    return [key for key in known if not any(other.startswith(f"{key}.") for other in known)]


def nearest(word: str, known: Sequence[str]) -> str:
    """What a message about an unknown word ends with: the known one that was probably meant, if there is one."""
    if len(word) > _LONGEST_WORD:
        return ""
    # Within its section first: a long, correct section must not outvote a mistake in the last part.
    section, dot, name = word.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[:2] == (section, dot)}
    matches = [siblings[match] for match in difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)]
    matches += difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    return f"; did you mean {matches[0]!r}?" if matches else ""
