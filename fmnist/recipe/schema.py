"""What a recipe may say: frozen dataclasses, checked as they are made."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence
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


def _at_most(most: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value > most:
            raise ValueError(f"{value} is too large; at most {most:,}")
        return value

    return check


# More would fit no machine, no table and no patience; each layer has random numbers of its own, 500 in all.
Units = Annotated[int, Field(gt=0), AfterValidator(_at_most(10**6))]
Layers = Annotated[int, Field(gt=0), AfterValidator(_at_most(100))]
Positive = Annotated[int, Field(gt=0), AfterValidator(_at_most(10**7))]
Text = Annotated[str, Field(max_length=1000)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Monitor = Literal["val_loss", "val_accuracy"]


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which images are trained on and which are held back for validation.

    split: a recipe whose images are held back, drawn by `split_seed`; "none" trains on all, once the rest is chosen.
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

    square_root: whether the pixels' square roots are taken, which evens out what dark and bright parts tell.
    whitening: damps the pixels' decorrelation before the first layer, which is left out if None; see `whitening`.
    receptive_field: about how many pixels around a place of its own each unit of the first hidden layer begins to look
        at (the standard deviation of a window over its initial weights); all pixels if None.
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
    """End the training when `monitor` has not improved for `patience` epochs, and keep the best epoch's weights."""

    monitor: Monitor = "val_loss"
    patience: Positive = 5


@dataclass(frozen=True, config=_STRICT)
class ReduceLROnPlateauConfig:
    """Multiply the learning rate by `factor` when `monitor` has not improved for `patience` epochs."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Positive = 3
    min_lr: NonNegative = 0.0


@dataclass(frozen=True, config=_STRICT)
class OneCycleConfig:
    """The learning rate rises to `learning_rate` for the share `warmup` of all steps, then falls to 0 by a cosine."""

    warmup: Fraction = 0.2


@dataclass(frozen=True, config=_STRICT)
class AugmentConfig:
    """Random changes of the training images, drawn anew in each epoch; all of them off unless set.

    shift: the most pixels that an image moves along each axis; what moves in is black.
    flip: whether an image is mirrored left to right, with probability 1/2.
    until: the share of the epochs after which images are at most mirrored, so that the last epochs see them placed and
        whole as the test's are (Touvron et al. 2019).
    """

    shift: Annotated[int, Field(ge=0, lt=28)] = 0
    flip: bool = False
    until: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """One training: `learning_rate`, `weight_decay` and `ema_momentum` are those of the Keras optimizer.

    l1_decay: each step takes `learning_rate` times it off the size of every weight of a dense layer, down to 0; one for
        all layers, or a list of one for each, the output layer's last. The averages that `ema_momentum` keeps are near
        0 then, but not at it.
    l1_locality: makes `l1_decay` of the first layer grow with a weight's distance d from the centre of its unit's
        receptive field, times 1 + `l1_locality` * (1 - exp(-d**2 / (8 * s**2))) at a standard deviation s of that.
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
    """The values that one key may take: `values`, a range `min`..`max`, or (for `model.hidden`) `layers` of `units`."""

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
    """A Keras Tuner search. `space` maps keys such as `training.learning_rate` to the values they may take."""

    space: dict[str, SpaceConfig]
    oracle: Literal["random", "bayesian", "hyperband"] = "random"
    objective: Monitor = "val_accuracy"
    trials: Annotated[int, Field(gt=0), AfterValidator(_at_most(MOST_TRIALS))] = 10
    epochs: Positive = 10
    max_retries_per_trial: Annotated[int, Field(ge=0, le=1000)] = 0


@dataclass(frozen=True, config=_STRICT)
class ReferenceConfig:
    """The figures that the recipe's origin reported, for the report to compare with."""

    train_accuracy: Fraction | None = None
    validation_accuracy: Fraction | None = None
    test_accuracy: Fraction | None = None
    macro_precision: Fraction | None = None
    macro_recall: Fraction | None = None


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """A resolved recipe. Without `search` it is fixed: `tune` has nothing to do and `train` uses it as it stands."""

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
