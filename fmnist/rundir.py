"""The run folder: the names of its files, atomic writes, and the record of what made it."""

import contextlib
import csv
import fcntl
import importlib.metadata
import io
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fmnist import __version__, environment
from fmnist.config import resolve, to_dict
from fmnist.errors import BadInput, Busy
from fmnist.revision import revision
from fmnist.schema import Recipe

logger = logging.getLogger(__name__)

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "keras-tuner", "scikit-learn", "numpy", "tensorboard")
# To ask for it is to set it, for all threads: so once, before there are any.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


class RunDir:
    """One run's folder. The properties are the only place that names its files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

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

    @property
    def history(self) -> Path:
        return self.path / "history.json"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def trained(self) -> bool:
        """Whether a training has been finished here: its curves are written last."""
        return self.model.exists() and self.history.exists()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def averaged_metrics(self) -> Path:
        return self.path / "metrics-tta.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def exports(self) -> Path:
        return self.path / "export"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def check(self, recipe: Recipe, seed: int) -> None:
        """Check that the folder is this recipe's and seed's, or nobody's yet.

        Raises:
            BadInput: it belongs to another recipe or seed, or its config.json is damaged.
        """
        if not self.config.exists():
            return
        held, held_seed = self.recipe()
        differing = [] if held_seed == seed else ["seed"]
        differing += _differences(_identity(to_dict(held)), _identity(to_dict(recipe)))
        if differing:
            raise BadInput(
                f"the run folder {self.path} holds another run (recipe {held.name}, seed {held_seed}; "
                f"it differs in {', '.join(differing)}); choose another with --run"
            )

    def claim(self, recipe: Recipe, seed: int) -> None:
        """Make the folder this recipe's and seed's, or check that it is.

        Raises:
            BadInput: it belongs to another recipe or seed, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"the run folder {self.path} cannot be made ({error.strerror}); choose another with --run"
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise BadInput(f"the run folder {self.path} cannot be written; choose another with --run")
        self.check(recipe, seed)
        settings = to_dict(recipe)
        if not self.config.exists():
            write_json(self.config, {"recipe": settings, "seed": seed, "jobs": {}})
            return
        held, _ = self.recipe()
        if held.search and recipe.search and held.search.trials < recipe.search.trials:
            write_json(self.config, read_json(self.config) | {"recipe": settings})

    def recipe(self) -> tuple[Recipe, int]:
        """The recipe and seed that claimed this folder.

        Raises:
            BadInput: no run was started here, or its config.json is damaged.
        """
        if not self.config.exists():
            raise BadInput(f"{self.path} holds no run; start one with `fmnist tune` or `fmnist train`")
        recorded = read_json(self.config, ("recipe", "seed"))
        return resolve(recorded["recipe"], str(self.config)), recorded["seed"]

    def record(
        self,
        job: str,
        *,
        devices: str,
        data: Mapping[str, str],
        numerics: Mapping[str, Any] | None = None,
        goes_on: bool = False,
    ) -> None:
        """Add to config.json what `job` runs with: the software, the machine and the hashes of the `data` files.

        Args:
            numerics: what else its rounding depends on, as `devices.numerics` tells it.
            goes_on: whether it takes up what an earlier process left, perhaps of another machine: that is said then.

        Raises:
            BadInput: another job of this run read other data.
        """
        self.check_data(data)
        recorded = read_json(self.config, ("recipe", "seed", "jobs"))
        facts = {
            "versions": versions(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "devices": devices,
            **(numerics or {}),
            "environment": environment.recorded(),
        }
        began = recorded["jobs"].get(job, {})
        if ignored := environment.ignored():
            logger.info("not used, since they would change the numbers: %s", ", ".join(ignored))
        elsewhere = began.get("went_on_from", [])
        if goes_on and (differing := [name for name in facts if name != "machine" and facts[name] != began.get(name)]):
            logger.warning(
                "%s goes on, but began with other %s (config.json holds both): from here on its numbers may differ",
                job,
                " and ".join(", ".join(differing).rsplit(", ", 1)),
            )
            elsewhere = [*elsewhere, {name: began.get(name) for name in facts}]
        recorded["jobs"][job] = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "revision": revision(),
            "image": os.environ.get("FMNIST_IMAGE"),
            **facts,
            "ignored": ignored,
            "data": dict(data),
            **({"went_on_from": elsewhere} if goes_on and elsewhere else {}),
        }
        write_json(self.config, recorded)

    def check_data(self, data: Mapping[str, str]) -> None:
        """Check that the jobs so far read the same `data` files, hashes by name.

        Raises:
            BadInput: one read another file of that name.
        """
        for other, facts in read_json(self.config, ("jobs",))["jobs"].items():
            for name in sorted(data.keys() & facts["data"].keys()):
                if data[name] != facts["data"][name]:
                    raise BadInput(
                        f"{name} is not the file that `{other}` of the run in {self.path} read; "
                        "give that run's data with --data, or choose another folder with --run"
                    )

    @contextlib.contextmanager
    def lock(self, job: str) -> Iterator[None]:
        """Hold the folder for `job`; the lock goes with the process, however that ends.

        Raises:
            Busy: another process holds it.
        """
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        with (self.checkpoint / f"{job}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"another `{job}` is at work in {self.path}; wait for it or stop it") from error
            yield


def check_distinct(runs: Sequence[RunDir]) -> None:
    """Refuse a run that is named twice, by whatever path (BadInput)."""
    seen = set()
    for run in runs:
        if (place := run.path.resolve()) in seen:
            raise BadInput(f"{run} is named twice; name each run once")
        seen.add(place)


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that replaces it, whole and on disk, when the block ends without an exception.

    Without `durable` it survives this process, as it must, but perhaps not a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix, delete=False
        ) as file:
            try:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                # A temporary file is private; a result is as public as the umask says.
                os.chmod(file.name, 0o666 & ~_UMASK)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        # A full disk tells no name.
        error.filename = error.filename or str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: no other reader takes them."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read an object from JSON.

    Raises:
        BadInput: no such file, not an object, or one of `keys` is missing.
    """
    try:
        value = json.loads(path.read_bytes())
        missing = [key for key in keys if key not in value]
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; run the job that makes it first") from error
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error}); remove it and run the job that makes it again") from error
    if missing or not isinstance(value, dict):
        raise BadInput(f"{path} is damaged (no {', '.join(missing) or 'object'}); remove it and run its job again")
    return value


def read_trials(path: Path) -> list[dict[str, str]]:
    """Read trials.csv, a dictionary a trial; none if there is no such file.

    Raises:
        BadInput: it is damaged.
    """
    try:
        trials = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), restval=""))
        for trial in trials:
            float(trial["score"] or "nan"), float(trial.get("seconds") or "nan"), trial["trial"], trial["status"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise BadInput(f"{path} is damaged ({error}); remove it and run `fmnist tune` again") from error
    return trials


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay the same. The number of trials says how far a search goes, not what is searched."""
    return {**settings, "search": settings["search"] and {**settings["search"], "trials": None}}


def _differences(left: Any, right: Any, prefix: str = "") -> list[str]:
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return [] if left == right else [prefix.rstrip(".")]
    keys = dict.fromkeys([*left, *right])
    return [name for key in keys for name in _differences(left.get(key), right.get(key), f"{prefix}{key}.")]


def versions() -> dict[str, str]:
    """Of what computes the results, by package."""
    found = {"fmnist": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
