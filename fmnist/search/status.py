"""Show the progress of a search, read from its run folder: once for `--status`, and live on a terminal."""

import contextlib
import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fmnist.errors import Restart, SearchFailed
from fmnist.progress import Column, fits, logging_to_stderr, results_console, table
from fmnist.recipe.schema import Recipe
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials
from fmnist.search import parameters
from fmnist.search.record import PRUNED, Reader, Record

logger = logging.getLogger(__name__)

State = Literal["searching", "interrupted", "finished"]
TrialStatus = Literal["running", "waiting", "completed", "pruned", "failed"]

_ENDED = ("COMPLETED", "FAILED")
_SHARE = 0.05  # of the time that the table may take; it takes long for thousands of trials
_LINES = 7  # of a screen that are not for trials: the summary, the heads of columns, what is left out, the prompt


def search_finished(run: RunDir, recipe: Recipe) -> bool:
    """Tell whether the search of `recipe` in `run` is finished: it has run all trials, or used up its space.

    Raises:
        BadInput: trials.csv is damaged.
    """
    rows = read_trials(run.trials)
    statuses = {row["status"] for row in rows}
    # If a person removes one of these files, the search continues from the others.
    whole = run.search.exists() and (run.best.exists() or "COMPLETED" not in statuses)
    ended = bool(rows) and statuses <= set(_ENDED)
    return whole and ended and (len(rows) >= recipe.require_search().trials or run.used_up.exists())


def next_step(run: RunDir) -> str:
    """Return the end of a message about a run that is not evaluated yet: the command that comes next.

    Raises:
        BadInput: there is no run, or a file of it is damaged.
    """
    recipe, _ = run.recipe()
    if run.trained:
        return f"run `fmnist eval {run}` first"
    searched = bool(recipe.search) and search_finished(run, recipe)
    if searched and not run.best.exists():
        return f"all trials of its search failed: {_way_on(run)}"
    job = "tune" if recipe.search and not searched else "train"
    if run.is_at_work(job):
        return f"wait for `fmnist {job}`, which is at work"
    return f"run `fmnist {job}` first, with the same options as before"


def _way_on(run: RunDir) -> str:
    """Return the advice about a run whose search has no result."""
    return (
        "choose another --run" if run.used_up.exists() else "give `fmnist tune` more --trials, or choose another --run"
    )


def outcome(run: RunDir, recipe: Recipe) -> str:
    """Return the result of a finished search in lines: the best trial, and the options that set its hyperparameters.

    Raises:
        SearchFailed: every trial failed.
        BadInput: a file of the search is damaged.
    """
    rows = read_trials(run.trials)
    if not any(row["status"] == "COMPLETED" for row in rows):
        reason = rows[-1].get("message") if rows else "none was run"
        raise SearchFailed(f"all {len(rows)} trials of the search failed; the last one: {reason}; {_way_on(run)}")
    best = records.read(run.best, records.Best)
    found = f"best of {len(rows)} trials: {best['trial']}, {best['objective']} {best['score']:.4f}"
    return "\n".join(filter(None, [_used_up(run, len(rows), recipe), found, parameters.options(best["values"])]))


def _used_up(run: RunDir, tried: int, recipe: Recipe) -> str:
    wanted = recipe.require_search().trials
    if not run.used_up.exists() or tried >= wanted:
        return ""
    return f"the space is used up after {tried} of {wanted} trials: more would try nothing new"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial as it is now.

    values: its hyperparameters, as the columns of trials.csv name them.
    score: the objective at its best epoch; of a trial that has not ended, at its last one; None without a number.
    epochs: how many it has trained.
    of: how many it may train.
    """

    id: str
    status: TrialStatus
    values: dict[str, Any]
    score: float | None
    epochs: int
    of: int
    seconds: float
    worker: str


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a search is. `trials` are in the order of a reader's interest: those that run, then the best first."""

    run: RunDir
    recipe: Recipe
    seed: int
    state: State
    trials: Sequence[Trial]

    def count(self, *statuses: TrialStatus) -> int:
        """Return how many trials have one of the statuses."""
        return sum(trial.status in statuses for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The best of the trials that have ended."""
        return next((trial for trial in self.trials if trial.status == "completed"), None)

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the search still needs, by the trials so far; None if there is nothing to tell that by."""
        seconds = [trial.seconds for trial in self.trials if trial.status in ("completed", "pruned")]
        if not (seconds and self.count("running")):
            return None
        left = max(0, self.recipe.require_search().trials - self.count("completed", "pruned", "failed"))
        return left * sum(seconds) / len(seconds) / self.count("running")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "run": str(self.run),
            "recipe": self.recipe.name,
            "seed": self.seed,
            "state": self.state,
            "objective": self.recipe.require_search().objective,
            "wanted": self.recipe.require_search().trials,
            **{status: self.count(status) for status in get_args(TrialStatus)},
            "seconds_left": self.seconds_left,
            "best": self.best and self.best.id,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }


def read(run: RunDir, state: State | None = None, journal: Reader | None = None) -> Status:
    """Read how far the search in `run` is.

    Args:
        state: what the caller knows of the state; None to find out whether a process is at work.
        journal: what has read the journal before; None to read all of it.

    Raises:
        BadInput: there is no search, or a file of it is damaged.
    """
    recipe, seed = run.recipe()
    search = recipe.require_search()
    if search_finished(run, recipe):
        state = "finished"
    elif state is None:
        state = "searching" if run.is_at_work("tune") else "interrupted"
    rows = _rows(run, journal or Reader(run.search), search.objective)
    trials = [_trial(row, recipe, state == "searching") for row in rows]
    sign = 1 if search.objective == "val_loss" else -1

    def rank(trial: Trial) -> tuple[float, float]:
        score = math.inf if trial.score is None else sign * trial.score
        return get_args(TrialStatus).index(trial.status), score if trial.status == "completed" else 0

    return Status(run, recipe, seed, state, sorted(trials, key=rank))


def show(run: RunDir, *, as_json: bool = False) -> None:
    """Print the progress of the search in `run`.

    Raises:
        BadInput: there is no search.
    """
    status = read(run)
    if as_json:
        print(json.dumps(status.to_dict(), indent=2))
        return
    console = results_console()
    console.print(_render(status, console.width, console.height - _LINES if console.is_terminal else sys.maxsize))


@contextlib.contextmanager
def live(run: RunDir) -> Iterator[Callable[[str], None] | None]:
    """Show the search's progress on stderr, below the log; yield a function that prints a line above it.

    If stderr is not a terminal, or logs are quiet, show nothing and yield None.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not logger.isEnabledFor(logging.INFO):
        yield None
        return
    state: State = "searching"
    journal = Reader(run.search)
    shown: RenderableType = Text()
    due = 0.0

    def render() -> RenderableType:
        nonlocal shown, due
        begin = time.monotonic()
        if begin >= due:
            # A file may be damaged, or its file system unavailable: the search itself reports that.
            with contextlib.suppress(Exception):
                # Half of the screen is for the log.
                shown = _render(read(run, state, journal), console.width, console.height // 2)
            end = time.monotonic()
            due = end + (end - begin) / _SHARE
        return shown

    with Live(console=console, get_renderable=render, refresh_per_second=2), logging_to_stderr():
        try:
            yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
        except BaseException as error:
            # A process that starts itself anew goes on with the search.
            if not isinstance(error, Restart):
                state = "interrupted"
            raise
        finally:
            due = 0.0


def _rows(run: RunDir, journal: Reader, objective: str) -> list[dict[str, Any]]:
    """Return the rows of trials.csv as they are now: the chief writes that file at intervals, its journal at once."""
    rows: dict[str, dict[str, Any]] = {row["trial"]: {**row} for row in read_trials(run.trials)}
    rows |= {trial_id: _row(record, objective) for trial_id, record in journal.read().items()}
    return [rows[name] for name in sorted(rows)]


def _row(record: Record, objective: str) -> dict[str, Any]:
    """Return what is kept of a trial as `tables.row` does, but for the score of one that runs: its last epoch's."""
    scores = [metrics[objective] for metrics in record.reports.values() if objective in metrics]
    return {
        "trial": record.trial_id,
        "status": record.status,
        "message": record.message,
        "score": record.score if record.score is not None else scores[-1] if scores else "",
        "epochs": len(scores),
        "seconds": sum(metrics.get("seconds", 0.0) for metrics in record.reports.values()),
        "worker": record.worker if record.at_work or record.status in _ENDED else "",
        **record.values,
    }


def _trial(row: dict[str, Any], recipe: Recipe, searching: bool) -> Trial:
    # One that failed, and is to be tried again, waits as well.
    status: TrialStatus = "waiting"
    if row["status"] in _ENDED:
        status = "completed" if row["status"] == "COMPLETED" else "failed"
        if status == "completed" and (row.get("message") or "").startswith(PRUNED):
            status = "pruned"
    elif searching and row["status"] == "RUNNING" and row.get("worker"):
        status = "running"
    return Trial(
        id=row["trial"],
        status=status,
        values={name: _plain(value) for name, value in row.items() if "." in name and value != ""},
        score=_number(row["score"]),
        epochs=int(_number(row.get("epochs")) or 0),
        of=int(_number(row.get("tuner/epochs")) or recipe.require_search().epochs),
        seconds=_number(row.get("seconds")) or 0.0,
        worker=row.get("worker", ""),
    )


def _number(value: Any) -> float | None:
    """Return what a cell of trials.csv, or a value of a trial's file, says, if that is a number."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return float(value) if math.isfinite(float(value)) else None
    return None


def _plain(value: Any) -> Any:
    """Return the value that a cell of trials.csv was written from."""
    if value in ("True", "False"):
        return value == "True"
    number = _number(value) if isinstance(value, str) else None
    return value if number is None else int(value) if value.isdecimal() else number


def _render(status: Status, width: int, most: int) -> RenderableType:
    """Return the status for a screen of that width, with at most so many trials."""
    search = status.recipe.require_search()
    lines = [
        f"{status.state}: {status.count('completed', 'pruned')} of {search.trials} trials done, "
        f"{status.count('running')} running, {status.count('failed')} failed"
    ]
    if pruned := status.count("pruned"):
        lines[-1] += f", {pruned} pruned"
    if best := status.best:
        lines.append(f"best {search.objective} {best.score or math.nan:.4f} (trial {best.id})")
    if status.seconds_left is not None:
        lines[-1] += f", about {_duration(status.seconds_left)} left"
    if status.state == "interrupted":
        lines.append("the same command goes on")
    lines.append(_used_up(status.run, len(status.trials), status.recipe))
    return Group(*(Text(line) for line in lines if line), *(_trials(status, width, most) if status.trials else ()))


def _trials(status: Status, width: int, most: int) -> list[RenderableType]:
    """Return the table of the trials, and a line that says what it leaves out."""
    search, trials = status.recipe.require_search(), status.trials[:most]
    # A key with one value alone tells no trial from another.
    keys = [key for key, choices in search.space.items() if choices.values is None or len(set(choices.values)) > 1]
    varied = [Column(parameters.name(key), [parameters.of_row(trial.values, key) for trial in trials]) for key in keys]
    figures = [
        # What one has trained that has ended is all that it trains.
        Column("epoch", [f"{t.epochs}" + f"/{t.of}" * (t.status in ("running", "waiting")) for t in trials]),
        Column(search.objective, [_figure(trial) for trial in trials]),
        Column("seconds", [f"{trial.seconds:.1f}" for trial in trials]),
    ]
    number = Column("trial", [trial.id for trial in trials])
    room = next(n for n in range(len(varied), -1, -1) if not n or fits([number, *varied[:n], *figures], width))
    notes = [f"{len(status.trials) - len(trials)} more trials"] * (len(trials) < len(status.trials))
    notes += [column.name for column in varied[room:]]
    shown = table([number, *varied[:room], *figures], width, [trial.status == "running" for trial in trials])
    return [shown, Text(f"in {status.run.trials.name} also: {', '.join(notes)}")] if notes else [shown]


def _figure(trial: Trial) -> str:
    if trial.status in ("failed", "waiting", "pruned"):
        return trial.status
    return "" if trial.score is None else f"{trial.score:.4f}"


def _duration(seconds: float) -> str:
    """Return so many seconds in the units of a person."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
