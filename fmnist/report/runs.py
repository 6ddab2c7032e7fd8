"""List runs: what each folder holds, how far it is, and its figures; which of them can be reported."""

import contextlib
import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size

from fmnist.errors import BadInput
from fmnist.files import folder_size
from fmnist.progress import Column, fits, results_console, spare, table
from fmnist.recipe.schema import Recipe, nearest
from fmnist.report.results import read
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials
from fmnist.search.status import search_finished
from fmnist.text import escaped, file_name, shorten

logger = logging.getLogger(__name__)

State = Literal["searching", "training", "interrupted", "searched", "trained", "evaluated", "damaged"]

SORTS = ("run", "recipe", "seed", "state", "trials", "val", "test", "when", "size")
"""The columns that runs can be sorted by; figures, dates and sizes with the largest first."""
_FIELDS = {"val": "validation"}
_DESCENDING = ("trials", "validation", "test", "when", "size")
_LEAST = 16  # characters of a name that is cut


@dataclasses.dataclass(frozen=True)
class Row:
    """A run.

    recipe, seed: empty and None if config.json does not tell them.
    trials: how many have ended, and how many are wanted; None without a search.
    validation: the validation accuracy, of the model, or else of the search's best trial; None if there is none yet.
    test: the test accuracy; None if there is none yet.
    when: when its last job began, or config.json was written: seconds since 1970.
    size: the bytes of all its files.
    """

    run: str
    recipe: str
    seed: int | None
    state: State
    trials: tuple[int, int] | None
    validation: float | None
    test: float | None
    when: float
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        when = datetime.datetime.fromtimestamp(self.when, datetime.timezone.utc)
        return {**dataclasses.asdict(self), "when": f"{when:%Y-%m-%dT%H:%M:%SZ}"}


def _holds(path: Path, *needed: str) -> bool:
    """Tell whether a folder that may be looked into holds a run, and these files of it."""
    try:
        return all((path / name).exists() for name in needed) and RunDir(path).exists()
    except PermissionError:
        # Such as the file system's lost+found, or another user's.
        return False


def finished(runs: Sequence[RunDir]) -> list[RunDir]:
    """Return the runs that have been evaluated, and can be read; say which others there are.

    Raises:
        BadInput: none of several is such a run, or a folder is not there.
    """
    if len(runs) == 1:
        # What is wrong with it, its reader says.
        return [*runs]
    if missing := next((run for run in runs if not run.path.exists()), None):
        raise BadInput(f"{missing} holds no run; start one with `fmnist tune` or `fmnist train`")
    evaluated = [run for run in runs if _holds(run.path, run.config.name, run.metrics.name, run.predictions.name)]
    found = []
    for run in evaluated:
        try:
            read(run)
            found.append(run)
        except BadInput as error:
            # One damaged run keeps no others from being compared.
            logger.warning("passed over: %s", error)
    if left_out := [str(run) for run in runs if run not in evaluated]:
        logger.warning("passed over, since it is no evaluated run: %s", ", ".join(left_out))
    if not found:
        raise BadInput(f"none of these {len(runs)} is an evaluated run; `fmnist runs` says how far each is")
    return found


def show(directory: Path, sort: str, *, as_json: bool = False) -> None:
    """Print the runs in a folder.

    Args:
        sort: one of SORTS, or a column's name in JSON.

    Raises:
        BadInput: no such folder, or no such column.
    """
    if sort not in (*SORTS, *_FIELDS.values()):
        raise BadInput(f"--sort {shorten(sort)}: choose one of {', '.join(SORTS)}{nearest(sort, SORTS)}")
    rows = sorted(_rows(directory), key=lambda row: _rank(row, _FIELDS.get(sort, sort)))
    if as_json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
        return
    if not rows:
        print(f"no runs in {RunDir(directory)}")
        return
    console = results_console()
    columns = _columns(rows, time.time())
    left_out = []
    for name in ("size", "when", "seed", "recipe", "trials"):
        if not fits(columns, console.width):
            columns = [column for column in columns if column.name != name]
            left_out.append(name)
    names, *others = columns
    if not fits(columns, console.width):
        room = max(_LEAST, names.width + spare(columns, console.width))
        columns = [Column(names.name, [_cut(name, room) for name in names.cells]), *others]
        left_out.append("whole names")
    console.print(table(columns, console.width))
    if left_out:
        print(f"no room for {', '.join(left_out)}; --json has all")


def _rows(directory: Path) -> Iterator[Row]:
    try:
        folders = sorted(path for path in directory.iterdir() if _holds(path))
    except OSError as error:
        raise BadInput(f"{RunDir(directory)} is no folder of runs: {error.strerror}") from error
    for folder in folders:
        run = RunDir(folder)
        try:
            yield _row(run)
        except BadInput as error:
            # One damaged run keeps no other from being listed.
            logger.warning("%s", error)
            yield _damaged(run)


def _damaged(run: RunDir) -> Row:
    name, seed = "", None
    with contextlib.suppress(BadInput):
        recipe, seed = run.recipe()
        name = escaped(recipe.name)
    when = next(path.stat().st_mtime for path in (run.config, run.path) if path.exists())
    return Row(run.name, name, seed, "damaged", None, None, None, when, folder_size(run.path))


def _row(run: RunDir) -> Row:
    recipe, seed = run.recipe()
    trials = None
    if recipe.search:
        ended = sum(trial["status"] in ("COMPLETED", "FAILED") for trial in read_trials(run.trials))
        trials = ended, recipe.search.trials
    validation = test = None
    if run.metrics.exists():
        metrics = records.read(run.metrics, records.Metrics)
        test = metrics["test"]["accuracy"]
        validation = metrics["validation"]["accuracy"] if "validation" in metrics else None
    elif run.trained:
        history = records.read(run.history, records.History)
        if curve := history["history"].get("val_accuracy"):
            validation = curve[history["best_epoch"]]
    elif recipe.search and recipe.search.objective == "val_accuracy" and run.best.exists():
        validation = records.read(run.best, records.Best)["score"]
    return Row(
        *(run.name, escaped(recipe.name), seed, _state(run, recipe), trials, validation, test),
        when=_when(run),
        size=folder_size(run.path),
    )


def _state(run: RunDir, recipe: Recipe) -> State:
    if run.is_at_work("tune"):
        return "searching"
    if run.is_at_work("train"):
        return "training"
    if run.metrics.exists():
        return "evaluated"
    if run.trained:
        return "trained"
    return "searched" if recipe.search and search_finished(run, recipe) else "interrupted"


def _when(run: RunDir) -> float:
    times = []
    for job in run.jobs().values():
        try:
            started = datetime.datetime.strptime(str(job.get("started")), "%Y-%m-%dT%H:%M:%SZ")
            times.append(started.replace(tzinfo=datetime.timezone.utc).timestamp())
        except ValueError:
            # Another version may have written it.
            continue
    return max(times, default=run.config.stat().st_mtime)


def _rank(row: Row, sort: str) -> tuple[Any, ...]:
    value = getattr(row, sort)
    if sort in _DESCENDING:
        number = value[0] if isinstance(value, tuple) else value
        return (number is None, -(number or 0), row.run)
    return (value is None, value or 0, row.run) if sort == "seed" else (value, row.run)


def _columns(rows: Sequence[Row], now: float) -> list[Column]:
    """Return the columns; without recipe and seed if the names of all folders tell them."""
    is_told = all(row.seed is None or row.run == file_name(f"{row.recipe}-seed{row.seed}") for row in rows)
    cells: dict[str, list[str]] = {
        "run": [row.run for row in rows],
        "recipe": ["" if is_told else row.recipe for row in rows],
        "seed": ["" if is_told or row.seed is None else str(row.seed) for row in rows],
        "state": [row.state for row in rows],
        "trials": ["/".join(map(str, row.trials or ())) for row in rows],
        "val": [_accuracy(row.validation) for row in rows],
        "test": [_accuracy(row.test) for row in rows],
        "when": [_age(now - row.when) for row in rows],
        "size": [_bytes(row.size) for row in rows],
    }
    return [Column(name, column) for name, column in cells.items() if any(column)]


def _cut(name: str, room: int) -> str:
    """Return a name that is too long without its middle: names of one kind differ in their ends."""
    if cell_len(name) <= room:
        return name
    head = (room - 3) // 2
    return f"{set_cell_size(name, head)}...{set_cell_size(name[::-1], room - 3 - head)[::-1]}"


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
