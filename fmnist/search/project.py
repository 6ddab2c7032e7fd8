"""Read and write the stock files of a Keras Tuner project: atomically, with the last version kept beside each."""

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
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


class Project:
    """The files `oracle.json` and `trial_*/trial.json`, as Keras Tuner reads and writes them.

    In addition to Keras Tuner's fields, a trial's file holds the `worker` that ran it last, and whether one is
    `at_work` on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save_oracle(self, state: dict[str, Any]) -> None:
        """Write the oracle's state. It can be made again from the trials, so this does not wait for the disk."""
        if not (tuner := self.path / "tuner0.json").exists():
            # A stock Tuner accepts the folder as a project only with this file, which is always empty.
            _replace(tuner, {}, durable=False)
        _replace(self.path / "oracle.json", state, durable=False)

    def save_trial(self, trial: Trial, worker: str, at_work: bool, durable: bool) -> None:
        state = {**trial.get_state(), "worker": worker, "at_work": at_work}
        _replace(self._trial(trial.trial_id), state, durable)

    def load_oracle(self, parse: Callable[[dict[str, Any]], _T]) -> _T | None:
        """Return the result of `parse` for the newest version that can be read; None if there is none."""
        return _newest(self.path / "oracle.json", formats.Oracle, parse)

    def load_trials(self) -> Iterator[tuple[str, tuple[Trial, str] | None]]:
        """Yield each trial's id with the trial and its worker, or None if neither version can be read; oldest first."""
        names = (folder.name.removeprefix("trial_") for folder in self.path.glob("trial_*"))
        for name in sorted(filter(str.isdigit, names), key=int):
            path = self._trial(name)
            # A folder without a file is of a trial that no worker received: the chief died while it made the trial.
            if path.exists() or _backup(path).exists():
                yield name, _newest(path, formats.Trial, functools.partial(_trial_of, name))

    def _trial(self, trial_id: str) -> Path:
        return self.path / f"trial_{trial_id}" / "trial.json"


def _trial_of(name: str, state: dict[str, Any]) -> tuple[Trial, str]:
    if state["trial_id"] != name:
        raise ValueError(f"it is trial {shorten(state['trial_id'])}'s")
    return Trial.from_state(state), state["worker"]


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
