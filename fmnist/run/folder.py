"""Define the run folder: the names of its files, the recipe and seed that own it, and the record of its jobs."""

import contextlib
import csv
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmnist import environment
from fmnist.errors import FULL, BadInput, Busy, explain
from fmnist.files import (
    check_replaceable,
    check_writable,
    is_locked,
    lock,
    locked,
    open_lock,
    read_bytes,
    sweep,
    write_json,
)
from fmnist.recipe import config
from fmnist.recipe.config import to_dict
from fmnist.recipe.schema import Recipe
from fmnist.run import provenance, records
from fmnist.run.records import Config
from fmnist.text import printable, shorten

logger = logging.getLogger(__name__)

_LOOK = 0.05  # seconds


class RunDir:
    """One run's folder. The properties are the only place that names its files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return printable(self.path)

    @property
    def name(self) -> str:
        """The folder's name, as other files and pages show it."""
        return printable(self.path.resolve().name)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def search(self) -> Path:
        return self.path / "search"

    @property
    def chief(self) -> Path:
        return self.search / "chief.json"

    @property
    def used_up(self) -> Path:
        return self.search / "used-up.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials.csv"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tb"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def trial_checkpoint(self, trial_id: str, attempt: int) -> Path:
        """Return the file of the state of a trial, from which the same attempt continues."""
        return self.checkpoint / f"trial_{trial_id}_{attempt}.npz"

    @property
    def history(self) -> Path:
        return self.path / "history.json"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def novelty(self) -> Path:
        return self.path / "novelty.npz"

    @property
    def trained(self) -> bool:
        """Whether a training has finished here; it writes its curves last."""
        return self.model.exists() and self.history.exists()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def averaged_metrics(self) -> Path:
        return self.path / "metrics-tta.json"

    @property
    def parent(self) -> Path:
        """The folder in which the run's folder lies."""
        # The run's folder may be the working folder, `.`.
        return self.path.parent if self.path.name else self.path.absolute().parent

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def exports(self) -> Path:
        return self.path / "export"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def _written(self) -> list[Path]:
        """The files that jobs replace."""
        return [
            *(self.config, self.chief, self.used_up, self.trials, self.best, self.history, self.model, self.novelty),
            *(self.metrics, self.averaged_metrics, self.predictions, self.report),
        ]

    def exists(self) -> bool:
        """Tell whether the folder holds a run's config.json, or what jobs write beside it."""
        return any(path.exists() for path in (*self._written, self.search))

    def check_output(self, path: Path) -> None:
        """Check that a path that a person has named for a page is none of the run's files but a page.

        Raises:
            BadInput: it is.
        """
        is_inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(self.path), ""))
        if is_inside and os.path.lexists(path) and path.suffix != ".html":
            raise BadInput(f"{path} belongs to the run in {self}, which needs it; name another file with --output")

    def check(self, recipe: Recipe, seed: int) -> None:
        """Check that the folder belongs to this recipe and seed, or to none yet.

        Raises:
            BadInput: it belongs to another recipe or seed, or its config.json is damaged or gone.
        """
        if not self.exists():
            return
        held, held_seed = self.recipe()
        differing = [*([] if held_seed == seed else ["seed"]), *self.gone]
        differing += _differences(_identity(to_dict(held)), _identity(to_dict(recipe)))
        if differing:
            raise BadInput(
                f"the run folder {self.path} holds another run (recipe {held.name}, seed {held_seed}; "
                f"it differs in {', '.join(differing)}); choose another with --run"
            )

    def claim(self, recipe: Recipe, seed: int) -> None:
        """Make the folder belong to this recipe and seed, or check that it does.

        Raises:
            BadInput: it belongs to another recipe or seed, or cannot be written.
        """
        verb = "made"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            verb = "written"
            check_writable(self.path)
        except OSError as error:
            room = "make room, or " * (error.errno in FULL)
            raise BadInput(
                f"the run folder {self} cannot be {verb} ({error.strerror}); {room}choose another with --run"
            ) from error
        for path in self._written:
            # Fail now rather than after hours of work.
            if not path.is_file():
                check_replaceable(path)
        if os.path.lexists(self.tensorboard) and not self.tensorboard.is_dir():
            # TensorFlow would fail with a message that does not name the cause.
            raise BadInput(f"{self.tensorboard} is not a folder; move it away, or choose another run folder with --run")
        settings = to_dict(recipe)
        with self.changing():
            if not self.exists():
                write_json(self.config, {"recipe": settings, "seed": seed, "jobs": {}})
                return
            self.check(recipe, seed)
            held, _ = self.recipe()
            if held.search and recipe.search and held.search.trials < recipe.search.trials:
                write_json(self.config, {**records.read(self.config, Config), "recipe": settings})

    def recipe(self) -> tuple[Recipe, int]:
        """Return the recipe and seed that claimed this folder.

        Raises:
            BadInput: no run was started here, or its config.json is damaged.
        """
        if not self.config.exists():
            if self.exists():
                raise BadInput(f"{self.config} is missing, though other files of a run are there; put it back")
            raise BadInput(f"{self} holds no run; start one with `fmnist tune` or `fmnist train`")
        recorded = records.read(self.config, Config)
        return config.recorded(recorded["recipe"], str(self.config)), recorded["seed"]

    @property
    def gone(self) -> dict[str, Any]:
        """The recipe's settings of keys that this version no longer has; raises as `recipe` does."""
        return config.upgrade(records.read(self.config, Config)["recipe"])[1]

    def jobs(self) -> dict[str, records.Job]:
        """Return what each job so far ran with, by the job's name.

        Raises:
            BadInput: no run was started here, or its config.json is damaged.
        """
        return records.read(self.config, Config)["jobs"]

    def record(
        self,
        job: str,
        *,
        devices: str,
        data: Mapping[str, str],
        numerics: Mapping[str, Any] | None = None,
        calibration: Mapping[str, float] | None = None,
        goes_on: bool = False,
    ) -> None:
        """Add to config.json what `job` runs with: the software, the machine and the hashes of the `data` files.

        Args:
            numerics: what else its rounding depends on, from `devices.numerics`.
            calibration: the images/s that the number of devices was chosen by, if it was.
            goes_on: whether the job continues the work of an earlier process, or works beside one, perhaps on another
                machine. Differences from that process are then recorded, and logged as a warning.

        Raises:
            BadInput: another job of this run read other data.
        """
        facts, begins = provenance.decisive(devices, numerics or {}), provenance.now()
        if ignored := environment.ignored():
            logger.info("not used, since they would change the numbers: %s", ", ".join(ignored))
        with self.changing():
            self.check_data(data)
            recorded: dict[str, Any] = {**records.read(self.config, Config)}
            began = recorded["jobs"].get(job, {}) if goes_on else {}
            elsewhere = began.get("went_on_from", [])
            differing = provenance.differences(facts, began) if began else []
            if differing and (other := {name: began.get(name) for name in facts}) not in elsewhere:
                elsewhere = [*elsewhere, other]
            recorded["jobs"][job] = {
                **begins,
                **facts,
                "ignored": ignored,
                "data": dict(data),
                **({"calibration": dict(calibration)} if calibration else {}),
                **({"went_on_from": elsewhere} if elsewhere else {}),
            }
            write_json(self.config, recorded)
        # A node without git does not know the commit, which is no reason to warn.
        if facts["revision"] is None or began.get("revision") is None:
            differing = [name for name in differing if name != "revision"]
        if differing:
            logger.warning(
                "%s goes on, but began with other %s (config.json holds both): from here on its numbers may differ",
                job,
                " and ".join(", ".join(differing).rsplit(", ", 1)),
            )

    def check_data(self, data: Mapping[str, str]) -> None:
        """Check that the jobs so far read the same files; `data` holds a SHA-256 by name.

        Raises:
            BadInput: a job read another file of the same name.
        """
        for other, facts in self.jobs().items():
            for name in sorted(data.keys() & facts["data"].keys()):
                if data[name] != facts["data"][name]:
                    raise BadInput(
                        f"{name} is not the file that `{other}` of the run in {self} read; "
                        "give that run's data with --data, or choose another folder with --run"
                    )

    @contextlib.contextmanager
    def lock(self, job: str) -> Iterator[None]:
        """Lock the folder for `job`. The system releases the lock when the process ends, even by a kill.

        Raises:
            Busy: another process holds it.
        """
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        with open_lock(self.checkpoint / f"{job}.lock") as file:
            if not lock(file):
                # `is_at_work` may have looked just now.
                time.sleep(_LOOK)
                if not lock(file):
                    raise Busy(f"another `{job}` is at work in {self}; wait for it or stop it")
            for folder in (self.path, self.checkpoint, self.exports, self.search, *self.search.glob("trial_*")):
                sweep(folder)
            yield

    def is_at_work(self, job: str) -> bool:
        """Tell whether a process holds the folder for `job`; False where files have no locks."""
        return is_locked(self.checkpoint / f"{job}.lock")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Lock the folder briefly, so that what is read there is still true when something is written.

        This is for config.json, and for the model with the files about it. The lock is not reentrant, and nobody can
        write while it is held: only read and write files under it.

        Raises:
            Contended: other processes have held it for too long.
        """
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        with locked(self.checkpoint / "config.lock", str(self)):
            sweep(self.path)
            yield


def check_distinct(runs: Sequence[RunDir]) -> None:
    """Raise BadInput if a run is named twice, by whatever paths."""
    seen = set()
    for run in runs:
        # Unlike `Path.resolve`, this raises nothing where links lead in a circle.
        if (place := os.path.realpath(run.path)) in seen:
            raise BadInput(f"{run} is named twice; name each run once")
        seen.add(place)


def read_trials(path: Path) -> list[dict[str, str]]:
    """Read trials.csv: one dictionary for each trial, and none if there is no such file.

    Raises:
        BadInput: the file is damaged.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8-sig"), newline=""), restval="")
        # A file without a line for a trial has its heads.
        records.check_trial(dict.fromkeys(rows.fieldnames or (), ""))
        return [records.check_trial(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        if line := explain(error):
            raise BadInput(line) from error
        raise BadInput(f"{path} is damaged ({shorten(str(error))}); remove it and run `fmnist tune` again") from error


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that must not change. What is said of a recipe may, and the number of trials of a search."""
    search = settings["search"] and {**settings["search"], "trials": None}
    return {**settings, "description": "", "reference": None, "search": search}


def _differences(left: Any, right: Any, prefix: str = "") -> list[str]:
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return [] if left == right else [prefix.rstrip(".")]
    keys = dict.fromkeys([*left, *right])
    return [name for key in keys for name in _differences(left.get(key), right.get(key), f"{prefix}{key}.")]
