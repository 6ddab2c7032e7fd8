"""Keep the trials of a search: in a journal, and as the stock files of a Keras Tuner project.

The journal is what a search goes on from. It holds each change before the chief's answer leaves. The stock files are
made of it now and then and at the end, for people and for Keras Tuner. They are read where there is no journal, as in a
project of an earlier version, and where it is damaged.
"""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from keras_tuner.engine.trial import Trial

from fmnist.errors import BadInput
from fmnist.files import atomic_write, read_bytes
from fmnist.run import records
from fmnist.search import formats, record
from fmnist.search.journal import NAME, Journal
from fmnist.search.record import Record
from fmnist.search.stock import ENDED
from fmnist.text import shorten

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_SUM = "sha256"  # key of the checksum over all other keys of a file


class Project:
    """The folder `search/`: `journal`, and Keras Tuner's `oracle.json` and `trial_*/trial.json`.

    In addition to Keras Tuner's fields, a trial's file holds the `worker` that ran it last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path / NAME)

    def load(self) -> tuple[dict[str, Record | None], bool]:
        """Return what is kept of each trial, by its id, the oldest first, and whether the journal holds all of it.

        A trial that is known, but whose files are lost or damaged, is None.

        Raises:
            BadInput: a file cannot be read.
        """
        kept: dict[str, Record] = {}
        whole = self._journal.read(functools.partial(record.take, kept))
        if not whole:
            logger.warning("%s is damaged; what it lacks comes from the trials' own files", self._journal.path)
        whole = whole and bool(kept)
        found: dict[str, Record | None] = {**kept}
        if not whole:
            for trial_id, stored in self._load_trials():
                known = kept.get(trial_id)
                if known is None:
                    found[trial_id] = stored
                elif stored and stored.status in ENDED:
                    # If the journal's line of the end is the damaged one, it does not know of the last run.
                    runs = known.runs if known.status in ENDED or known.runs is None else known.runs + 1
                    found[trial_id] = dataclasses.replace(stored, runs=runs, seed_state=known.seed_state)
        return {trial_id: found[trial_id] for trial_id in sorted(found, key=int)}, whole

    def load_oracle(self) -> dict[str, Any] | None:
        """Return the state of the oracle in the stock file; None if it cannot be read."""
        return _newest(self.path / "oracle.json", formats.Oracle, dict)

    def keep(self, kept: Record) -> None:
        """Add to the journal what is new about a trial, apart from its reports, which stay unless it is INVALID."""
        self._journal.add(record.head(kept), durable=True)

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add to the journal what a trial reports of epoch `step`; it replaces the reports of later epochs, too."""
        self._journal.add(record.report(trial_id, step, metrics), durable=False)

    def flush(self) -> None:
        """Have all that was added written.

        Raises:
            OSError: it cannot be written now; the next call tries again.
        """
        self._journal.flush()

    def replace(self, all_kept: Iterable[Record]) -> None:
        """Write the journal anew."""
        self._journal.replace(line for kept in all_kept for line in record.lines(kept))

    def is_published(self, trial_id: str) -> bool:
        """Tell whether a trial has its stock file."""
        return self._trial(trial_id).exists()

    def publish_trial(self, trial: Trial, worker: str) -> None:
        """Write the stock file of a trial."""
        _write(self._trial(trial.trial_id), {**trial.get_state(), "worker": worker})

    def publish_oracle(self, state: dict[str, Any]) -> None:
        """Write the stock file of the oracle."""
        if not (tuner := self.path / "tuner0.json").exists():
            # A stock Tuner accepts the folder as a project only with this file, which is always empty.
            _write(tuner, {})
        _write(self.path / "oracle.json", state)

    def _load_trials(self) -> Iterator[tuple[str, Record | None]]:
        names = (folder.name.removeprefix("trial_") for folder in self.path.glob("trial_*"))
        for name in filter(str.isdigit, names):
            path = self._trial(name)
            # A folder without a file is of a trial that no worker received: the chief died while it made the trial.
            if path.exists() or _backup(path).exists():
                yield name, _newest(path, formats.Trial, functools.partial(_stock_record, name))

    def _trial(self, trial_id: str) -> Path:
        return self.path / f"trial_{trial_id}" / "trial.json"


def reports(metrics: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return the metrics of each epoch from Keras Tuner's configuration of a `MetricsTracker`."""
    found: dict[int, dict[str, float]] = {}
    for name, history in metrics["metrics"].items():
        for seen in history["observations"]:
            found.setdefault(seen["step"], {})[name] = seen["value"][-1]
    return dict(sorted(found.items()))


def _stock_record(name: str, state: dict[str, Any]) -> Record:
    if state["trial_id"] != name:
        raise ValueError(f"it is trial {shorten(state['trial_id'])}'s")
    same = {key: state[key] for key in ("trial_id", "status", "message", "score", "best_step", "worker")}
    return Record(**same, values=state["hyperparameters"]["values"], reports=reports(state["metrics"]))


def _backup(path: Path) -> Path:
    """Return the name under which an earlier version kept the file that it replaced."""
    return path.with_name(f"{path.name}.bak")


def _write(path: Path, state: dict[str, Any]) -> None:
    with atomic_write(path, durable=False) as file:
        # JSON as Keras Tuner writes it: it may contain NaN, as a metric of a stock worker.
        file.write(json.dumps({**state, _SUM: _sum(state)}).encode())


def _checked(state: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    # Files of earlier versions have no checksum.
    if state.pop(_SUM, None) not in (None, _sum(state)):
        raise ValueError("it is not what its checksum says")
    return {**records.check(state, kind)}


def _sum(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _newest(path: Path, kind: type[Any], parse: Callable[[dict[str, Any]], _T]) -> _T | None:
    for version in (path, _backup(path)):
        try:
            value = parse(_checked(json.loads(read_bytes(version)), kind))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInput(f"{version} cannot be read: {error.strerror}") from error
        except Exception as error:  # Keras Tuner raises many types on a damaged file
            logger.warning("%s is damaged (%s)", version, shorten(f"{type(error).__name__}: {error}"))
            continue
        if version != path:
            logger.warning("going on from the version before: %s", version)
        return value
    return None
