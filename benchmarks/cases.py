"""What every alternative trains: the network, its training, how many images, in which precision."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fmnist.recipe.schema import ModelConfig, TrainingConfig

DROPOUT = 0.2


@dataclass(frozen=True)
class Case:
    """One network to train.

    train_limit: the number of training images, or None for all 54,000.
    precision: a Keras dtype policy.
    variant: what distinguishes it from other cases of the same network, in words.
    """

    model: ModelConfig
    training: TrainingConfig
    train_limit: int | None = None
    precision: str = "float32"
    variant: str = ""

    def but(self, variant: str, model: Mapping[str, Any], training: Mapping[str, Any]) -> "Case":
        """Return this case with other values of these keys."""
        return replace(
            self, variant=variant, model=replace(self.model, **model), training=replace(self.training, **training)
        )

    def __str__(self) -> str:
        images = f", {self.train_limit:,} images" if self.train_limit else ""
        variant = f", {self.variant}" if self.variant else ""
        return f"{'-'.join(map(str, self.model.hidden))}, batch {self.training.batch_size}{images}{variant}"


@dataclass(frozen=True)
class Run:
    """A case and what trains it: `alternative` is the "module:Class" of an Alternative in this package."""

    alternative: str
    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.alternative}({options}) on {self.case}, {self.case.precision}"


class Alternative(Protocol):
    """A way to train a case; made as `Class(data: TrainData, case: Case, **options)` in a process of its own."""

    def train(self) -> None:
        """Train one epoch; return when it is done, on the device too."""

    def validate(self) -> None:
        """Find loss and accuracy over the validation images."""


def network(hidden: tuple[int, ...], batch_size: int, train_limit: int | None = None) -> Case:
    """Return a case with batch normalisation, dropout and Adam."""
    model = ModelConfig(hidden=hidden, batch_normalization=True, dropout=DROPOUT)
    return Case(model, TrainingConfig(batch_size=batch_size), train_limit)
