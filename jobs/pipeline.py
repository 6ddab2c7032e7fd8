"""Define what `make submit` submits to any cluster: the pipeline tune, train, eval, report of one run."""

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED, Recipe
from fmnist.run.folder import RunDir

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """The jobs of one run.

    Attributes:
        recipe: a name, or the path of a TOML file.
        overrides: `key=value`, as `--set` takes them.
        trials: the number of trials of the search; None for the recipe's.
        workers: how many processes train trials.
        gpus_per_worker: 0 for a cluster without GPUs.
        workers_per_gpu: how many workers are one job, and share its GPU and processors.
        data: the folder of the data set's files; None to find them as `fmnist data` does.
    """

    run: RunDir
    recipe: str
    seed: int
    overrides: Sequence[str] = ()
    trials: int | None = None
    workers: int = 1
    gpus_per_worker: int = 1
    workers_per_gpu: int = 1
    data: Path | None = None

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe, with the overrides.

        Raises:
            BadInput: there is no such recipe, or it cannot be used.
        """
        found = config.load(self.recipe, self.overrides)
        if self.trials is None:
            return found
        found.require_search()
        return config.replace(found, {"search.trials": self.trials})

    @property
    def name(self) -> str:
        """The run folder's name, after which the jobs are named too."""
        return self.run.path.name

    @property
    def worker_jobs(self) -> int:
        """The number of jobs that hold the workers."""
        return self.workers // self.workers_per_gpu

    @property
    def logs(self) -> Path:
        """The folder of the jobs' logs."""
        return self.run.path / "logs"

    @property
    def state(self) -> Path:
        """The folder of the submission's own files: the jobs' ids, the token, the recipe's file."""
        return self.run.path / "jobs"

    @property
    def token(self) -> Path:
        """The file of the secret that the search's chief and workers share."""
        return self.state / "token"

    def arguments(self, job: str, recipe: str, run: str) -> list[str]:
        """Return the arguments of `fmnist` for `job`, with the recipe and the run folder as the job sees them."""
        if job == "report":
            return [job, run]
        # As an option, because images set FMNIST_DATA already.
        data = ["--data", str(self.data.absolute())] if self.data else []
        if job == "eval":
            return [job, run, *data]
        options = ["--recipe", recipe, "--seed", str(self.seed), "--run", run]
        options += [argument for override in self.overrides for argument in ("--set", override)]
        if job == "tune" and self.trials is not None:
            options += ["--trials", str(self.trials)]
        if job == "tune" and self.workers_per_gpu > 1:
            # In a job of workers: it becomes so many. The chief has no use for it.
            options += ["--workers", str(self.workers_per_gpu)]
        if job == "tune" and self.gpus_per_worker > 1:
            options += ["--gpus-per-worker", str(self.gpus_per_worker)]
        return [job, *options, *data]

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Claim the run folder, and make in it what the jobs need; if the block raises, remove a new folder again.

        Raises:
            BadInput: the run has a mistake that can be found before submission.
        """
        if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?", self.name):
            raise BadInput(f"RUN={self.name}: the jobs are named after it; use letters, digits, '.', '_' and '-'")
        if self.workers < 1 or self.gpus_per_worker < 0 or not 0 <= self.seed <= MOST_SEED:
            raise BadInput(f"WORKERS is at least 1, GPUS_PER_WORKER at least 0, and SEED from 0 to {MOST_SEED}")
        if self.workers_per_gpu < 1 or self.workers % self.workers_per_gpu:
            raise BadInput(f"WORKERS={self.workers} is no multiple of WORKERS_PER_GPU={self.workers_per_gpu}")
        if self.workers_per_gpu > 1 and self.gpus_per_worker > 1:
            raise BadInput("workers that have several GPUs share none: leave out GPUS_PER_WORKER or WORKERS_PER_GPU")
        fresh = not self.run.path.exists()
        self.run.claim(self.resolved, self.seed)
        try:
            self.logs.mkdir(exist_ok=True)
            self.state.mkdir(exist_ok=True)
            if not self.token.exists():
                draft = self.token.with_name("token.new")
                draft.unlink(missing_ok=True)
                write_secret(draft, secrets.token_urlsafe())
                draft.replace(self.token)
            elif not os.access(self.token, os.R_OK):
                raise BadInput(f"{self.token} is another user's, and its jobs need it; choose another RUN")
            yield
        except BaseException:
            if fresh:
                # A refused submission must not claim the run's name.
                shutil.rmtree(self.run.path)
            raise

    def recipe_file(self) -> Path | None:
        """Return the recipe's file; None if the recipe is one of the package."""
        return None if self.recipe in config.names() else Path(self.recipe)


@dataclass(frozen=True)
class Site:
    """The settings that depend on the cluster, not on the run. None leaves the choice to the cluster.

    Attributes:
        image: the name by which the cluster's nodes pull the image.
        time: the time limit of each job, in minutes.
        memory, cpus: what each job that trains gets; memory as in 4G.
        runtime: what runs a Slurm job.
        account, partition: the account and the partition of Slurm's jobs.
        requeues: how often an interrupted Slurm job is put back into the queue.
        overlay: the name of a folder in jobs/kubernetes/overlays.
        namespace, queue: the namespace in Kubernetes, the queue in Kueue.
    """

    image: str | None = None
    time: int | None = None
    memory: str | None = None
    cpus: int = 2
    runtime: str = "none"
    account: str | None = None
    partition: str | None = None
    requeues: int = 10
    overlay: str = "jobset"
    namespace: str | None = None
    queue: str | None = None


def write_secret(path: Path, secret: str) -> None:
    """Write a new file that nobody else can read; warn if the file system does not keep permissions."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret)
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            logger.warning("%s holds the search's secret, and this file system lets other users read it", path)


def need(program: str, cluster: str) -> None:
    """Raise BadInput if this machine has no `program`."""
    if not shutil.which(program):
        raise BadInput(f"this machine has no {program}: submit from one that is part of the {cluster} cluster")
