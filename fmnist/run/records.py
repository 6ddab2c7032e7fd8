"""Define the schemas of a run's files, and read files by them. A file that does not fit its schema is damaged.

A file may hold keys that are not named here, as files of other versions do: they are kept, and are no error.
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from fmnist.errors import BadInput
from fmnist.files import REMEDY, read_json
from fmnist.recipe.schema import CLASSES, MOST_SEED
from fmnist.text import shorten

_T = TypeVar("_T")

_record = with_config(ConfigDict(extra="allow", strict=True, allow_inf_nan=False))

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# The bounds keep sums and plots of the numbers from overflowing.
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Amount = Annotated[float, Field(ge=0, le=1e30)]
Curve = Annotated[list[Number], Field(min_length=1)]


@_record
class Job(TypedDict):
    """What one job ran with."""

    data: dict[str, str]
    devices: NotRequired[str]
    revision: NotRequired[str | None]
    went_on_from: NotRequired[list[dict[str, Any]]]
    calibration: NotRequired[dict[str, Amount]]


@_record
class Claimed(TypedDict):
    """A recipe as it was recorded; `config.recorded` checks the other keys."""

    name: str


@_record
class Config(TypedDict):
    """The content of config.json."""

    recipe: Claimed
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)]
    jobs: dict[str, Job]


@_record
class Best(TypedDict):
    """The content of best.json."""

    trial: str
    objective: str
    score: Number
    values: dict[str, Any]


@_record
class Settings(TypedDict):
    """The sections of the recipe that a model was trained with."""

    data: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any]


@_record
class Curves(TypedDict):
    """The curves of a training: one value for each epoch."""

    loss: Curve
    accuracy: Curve
    learning_rate: Curve
    val_loss: NotRequired[Curve]
    val_accuracy: NotRequired[Curve]


@_record
class Trained(TypedDict):
    """The model that a training wrote."""

    sha256: str


@_record
class History(TypedDict):
    """The content of history.json."""

    settings: Settings
    history: Curves
    best_epoch: Count
    seconds: Amount
    images_per_second: Amount
    model: NotRequired[Trained]


@_record
class Model(TypedDict):
    """A model that was evaluated."""

    sha256: str
    parameters: Count


@_record
class Data(TypedDict):
    """The data that a model was evaluated on."""

    is_fashion_mnist: bool
    sha256: dict[str, str]
    classes: Annotated[list[str], Field(min_length=CLASSES, max_length=CLASSES)]


@_record
class Accuracy(TypedDict):
    """The basic figures of a split."""

    images: Annotated[int, Field(gt=0)]
    accuracy: Share
    loss: Number


@_record
class Averages(TypedDict):
    """Means over the classes."""

    precision: Share
    recall: Share
    f1: Share


@_record
class OfClass(Averages):
    """The figures of one class."""

    name: str


@_record
class Bin(TypedDict):
    """One of the 15 bins of a calibration."""

    bin: Annotated[int, Field(ge=0, lt=15)]
    images: Count
    confidence: Share
    accuracy: Share


_Row = Annotated[list[Count], Field(min_length=CLASSES, max_length=CLASSES)]


@_record
class Figures(Accuracy):
    """All figures of the test images."""

    accuracy_interval: Annotated[list[Share], Field(min_length=2, max_length=2)]
    macro: Averages
    weighted: Averages
    expected_calibration_error: Share
    calibration: list[Bin]
    per_class: Annotated[list[OfClass], Field(min_length=CLASSES, max_length=CLASSES)]
    confusion_matrix: Annotated[list[_Row], Field(min_length=CLASSES, max_length=CLASSES)]


@_record
class Judged(TypedDict):
    """The part that metrics.json, metrics-tta.json and an ensemble's file have in common."""

    data: Data
    test: Figures
    validation: NotRequired[Accuracy]
    seconds: Amount
    images_per_second: Amount


@_record
class Metrics(Judged):
    """The content of metrics.json."""

    model: Model
    train: Accuracy


@_record
class Averaged(Judged):
    """The content of metrics-tta.json."""

    model: Model
    views: Annotated[int, Field(gt=0)]


@_record
class Member(TypedDict):
    """A model of an ensemble."""

    run: str
    model: Model


@_record
class Ensemble(Judged):
    """The content of ensemble.json and ensemble-tta.json, and of the ensembles of `evidence`."""

    members: Annotated[list[Member], Field(min_length=1)]
    parameters: Count
    views: Annotated[int, Field(gt=0)]


@_record
class Notice(TypedDict):
    """The content of search/chief.json."""

    address: str | None
    trials: Count


def read(path: Path, kind: type[_T]) -> _T:
    """Read a JSON file of a run.

    Args:
        kind: one of the classes above, or one of `search.formats`.

    Raises:
        BadInput: the file does not exist, cannot be read, or is damaged.
    """
    # No job makes config.json again: what else is in the folder would be another run's.
    remedy = "put back a copy of it, or choose another folder with --run" if kind is Config else REMEDY
    try:
        return check(read_json(path, remedy=remedy), kind)
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); {remedy}") from error


def check(value: Mapping[str, Any], kind: type[_T]) -> _T:
    """Return the value, if it fits the schema `kind`.

    Raises:
        ValueError: it does not; the message says where and why.
    """
    try:
        found: Any = _adapter(cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{shorten('.'.join(map(str, first['loc'])))}: {first['msg']}") from error
    if also := _ALSO.get(kind):
        also(found)
    return found


def check_trial(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return a line of trials.csv, as the csv module reads it, if it is valid.

    Raises:
        ValueError: it is not.
    """
    if None in row:
        raise ValueError("a line is longer than the first one")
    if missing := [name for name in ("trial", "status", "score") if name not in row]:
        raise ValueError(f"it has no {', '.join(missing)}")
    # The score of a trial that diverged may be NaN.
    float(row["score"] or "nan")
    trial = {"seconds": "", **row}
    if not 0 <= float(trial["seconds"] or 0) < math.inf:
        raise ValueError(f"trial {shorten(row['trial'])} took {shorten(row['seconds'])} seconds")
    return trial


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_whole(history: History) -> None:
    curves = [curve for name, curve in history["history"].items() if name in Curves.__annotations__]
    epochs = {len(curve) for curve in curves if isinstance(curve, list)}
    if len(epochs) > 1 or not history["best_epoch"] < min(epochs):
        raise ValueError("its curves and best_epoch are of different numbers of epochs")


# Checks of more than one field.
_ALSO: dict[Any, Callable[[Any], None]] = {History: _is_whole}
