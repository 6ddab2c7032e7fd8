"""Define what a search keeps of a trial, and how the lines of its journal say it. It imports no Keras Tuner."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmnist.search import journal
from fmnist.search.journal import Line

_REPORTS = "reports"

PRUNED = "pruned"
"""How the message of a trial begins that was completed before its last epoch."""


@dataclass(frozen=True)
class Record:
    """All that is kept of a trial.

    Attributes:
        values: hyperparameters by name, with Keras Tuner's own (`tuner/...`).
        worker: the worker that ran it last; empty if nobody did.
        at_work: whether that worker is at work on it, as far as the chief knows.
        lease: seconds of silence after which that worker loses it; None if nobody has it, or it is not known.
        runs: number of its runs that have ended; None if it is not known, in a project of an earlier version.
        seed_state: state of the oracle's draws (`stock.seed_state`) when this was recorded; None as `runs`.
        reports: the metrics that its present run has reported, by epoch; epochs in ascending order.
    """

    trial_id: str
    status: str
    message: str | None
    values: dict[str, Any]
    score: float | None
    best_step: int | None
    worker: str
    at_work: bool = False
    lease: float | None = None
    runs: int | None = None
    seed_state: int | None = None
    reports: dict[int, dict[str, float]] = field(default_factory=dict)


def head(record: Record) -> Line:
    """Return the line that says all of a trial, apart from its reports."""
    return {name: value for name, value in vars(record).items() if name != _REPORTS}


def report(trial_id: str, step: int, metrics: Mapping[str, float]) -> Line:
    """Return the line of a report of epoch `step`."""
    return {"trial_id": trial_id, "step": step, "metrics": {name: float(value) for name, value in metrics.items()}}


def lines(record: Record) -> Iterator[Line]:
    """Yield the lines that say all of a trial."""
    yield head(record)
    for step, metrics in record.reports.items():
        yield report(record.trial_id, step, metrics)


def take(found: dict[str, Record], line: Line) -> None:
    """Take in a line: a report replaces those of later epochs, too; a trial that is INVALID loses its reports."""
    known = found.get(line["trial_id"])
    if "step" not in line:
        keeps = known and line["status"] != "INVALID"
        found[line["trial_id"]] = Record(**line, reports=known.reports if known and keeps else {})
    elif known:
        while known.reports and next(reversed(known.reports)) >= line["step"]:
            known.reports.popitem()
        known.reports[line["step"]] = line["metrics"]


class Reader:
    """Reads the journal in the folder of a search, which the search may write meanwhile."""

    def __init__(self, search: Path) -> None:
        self._path = search / journal.NAME
        self._file = self._size = 0
        self._found: dict[str, Record] = {}

    def read(self) -> Mapping[str, Record]:
        """Return what the journal says of each trial, by its id, leaving out what is damaged.

        A further call reads what was added meanwhile.

        Raises:
            BadInput: the file cannot be read.
        """
        with contextlib.suppress(OSError):
            now = self._path.stat()
            if now.st_ino != self._file or now.st_size < self._size:
                # A chief wrote it anew.
                self._file, self._size, self._found = now.st_ino, 0, {}
        _, self._size = journal.read(self._path, functools.partial(take, self._found), self._size)
        return self._found
