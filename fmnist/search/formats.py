"""Define the schemas of Keras Tuner's files; `records` has those of the other files of a run."""

from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from fmnist.run.records import Count

# A stock worker of Keras Tuner may report a metric that is NaN.
_record = with_config(ConfigDict(extra="allow", strict=True))


@_record
class Space(TypedDict):
    """Keras Tuner's hyperparameters, and the values of one trial."""

    space: list[dict[str, Any]]
    values: dict[str, str | bool | int | float]


@_record
class Observation(TypedDict):
    """The report of a metric after an epoch."""

    value: list[float]
    step: Count


@_record
class MetricHistory(TypedDict):
    """All reports of a metric."""

    observations: list[Observation]
    direction: Literal["min", "max"]


@_record
class MetricHistories(TypedDict):
    """All reports of each metric, by its name."""

    metrics: dict[str, MetricHistory]


@_record
class Trial(TypedDict):
    """The content of search/trial_*/trial.json."""

    trial_id: str
    status: Literal["RUNNING", "COMPLETED", "FAILED", "INVALID", "STOPPED", "IDLE"]
    hyperparameters: Space
    metrics: MetricHistories
    score: float | None
    best_step: int | None
    message: str | None
    worker: str


@_record
class Display(TypedDict):
    """The times at which trials began, which Keras Tuner prints."""

    search_start: str | None
    trial_start: dict[str, str]
    trial_number: dict[str, int]


@_record
class Place(TypedDict):
    """A trial's place in a round of Hyperband."""

    past_id: str | None
    id: str


@_record
class Bracket(TypedDict):
    """A bracket of Hyperband."""

    bracket_num: Count
    rounds: list[list[Place]]


@_record
class Oracle(TypedDict):
    """The content of search/oracle.json; the last keys are those of Hyperband and of Bayesian optimization."""

    ongoing_trials: dict[str, str]
    hyperparameters: Space
    start_order: list[str]
    end_order: list[str]
    run_times: dict[str, int]
    retry_queue: list[str]
    seed: int
    seed_state: int
    tried_so_far: list[str]
    id_to_hash: dict[str, str | None]
    display: Display
    max_epochs: NotRequired[int]
    min_epochs: NotRequired[int]
    factor: NotRequired[int]
    brackets: NotRequired[list[Bracket]]
    current_bracket: NotRequired[int]
    current_iteration: NotRequired[int]
    num_initial_points: NotRequired[int | None]
    alpha: NotRequired[float]
    beta: NotRequired[float]
