"""Read and write the stock files of a Keras Tuner project: atomically, with the last version kept beside each."""

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from keras_tuner.engine.trial import Trial

from fmnist.errors import BadInput
from fmnist.files import atomic_write, read_bytes
from fmnist.run import records
from fmnist.search import formats
from fmnist.text import shorten

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_SUM = "sha256"  # key of the checksum over all other keys of a file


@dataclass(frozen=True)
class Saved:
    """A trial's file, which holds more than Keras Tuner's fields.

    Attributes:
        trial: the trial.
        worker: the worker that ran it last; empty if nobody did.
        runs: number of its runs that have ended; None in a file of an earlier version.
        seed_state: state of the oracle's draws (`stock.seed_state`) when the file was written.
    """

    trial: Trial
    worker: str
    runs: int | None = None
    seed_state: int = 0


class Project:
    """The files `oracle.json` and `trial_*/trial.json`, as Keras Tuner reads and writes them.

    The trials' files are what a search goes on from. The oracle's file is derived from them, for Keras Tuner itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save_oracle(self, state: dict[str, Any]) -> None:
        """Write the oracle's state. It does not wait for the disk."""
        if not (tuner := self.path / "tuner0.json").exists():
            # A stock Tuner accepts the folder as a project only with this file, which is always empty.
            _replace(tuner, {}, durable=False)
        _replace(self.path / "oracle.json", state, durable=False)

    def save_trial(self, saved: Saved, durable: bool) -> None:
        more = {"worker": saved.worker, "runs": saved.runs, "seed_state": saved.seed_state}
        _replace(self._trial(saved.trial.trial_id), {**saved.trial.get_state(), **more}, durable)

    def load_oracle(self) -> dict[str, Any] | None:
        """Return the newest version of the oracle's state that can be read; None if there is none."""
        return _newest(self.path / "oracle.json", formats.Oracle, dict)

    def load_trials(self) -> Iterator[tuple[str, Saved | None]]:
        """Yield each trial's id with what its file holds, or None if neither version can be read; oldest first."""
        names = (folder.name.removeprefix("trial_") for folder in self.path.glob("trial_*"))
        for name in sorted(filter(str.isdigit, names), key=int):
            path = self._trial(name)
            # A folder without a file is of a trial that no worker received: the chief died while it made the trial.
            if path.exists() or _backup(path).exists():
                yield name, _newest(path, formats.Trial, functools.partial(_saved, name))

    def _trial(self, trial_id: str) -> Path:
        return self.path / f"trial_{trial_id}" / "trial.json"


def _saved(name: str, state: dict[str, Any]) -> Saved:
    if state["trial_id"] != name:
        raise ValueError(f"it is trial {shorten(state['trial_id'])}'s")
    return Saved(Trial.from_state(state), state["worker"], state.get("runs"), state.get("seed_state", 0))


def _backup(path: Path) -> Path:
    return path.with_name(f"{path.name}.bak")


def _replace(path: Path, state: dict[str, Any], durable: bool) -> None:
    with atomic_write(path, durable=durable) as file:
        # JSON as Keras Tuner writes it: it may contain NaN, as a metric of a stock worker.
        file.write(json.dumps({**state, _SUM: _sum(state)}).encode())
        file.flush()
        # Until the new version is in place, a reader that finds no file uses this one.
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, _backup(path))


def _checked(state: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    # Files of earlier versions have no checksum.
    if state.pop(_SUM, None) not in (None, _sum(state)):
        raise ValueError("it is not what its checksum says")
    return {**records.check(state, kind)}


def _sum(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _newest(path: Path, kind: type[Any], parse: Callable[[dict[str, Any]], _T]) -> _T | None:
    backup = _backup(path)
    for version in (path, backup):
        try:
            value = parse(_checked(json.loads(read_bytes(version)), kind))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInput(f"{version} cannot be read: {error.strerror}") from error
        except Exception as error:  # Keras Tuner raises many types on a damaged file
            logger.warning("%s is damaged (%s)", version, shorten(f"{type(error).__name__}: {error}"))
            continue
        if version == backup:
            logger.warning("going on from the version before: %s", backup)
            # At once: the next write would otherwise keep the damaged version as the backup, in place of the good one.
            with atomic_write(path) as file:
                file.write(read_bytes(backup))
        return value
    return None
