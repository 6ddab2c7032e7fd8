"""Start `fmnist tune` in the right form: a process of a search, a whole search, or the parent of its processes."""

import logging
import os
import sys
from pathlib import Path

from fmnist.data import dataset
from fmnist.devices import request
from fmnist.errors import BadInput
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import local, roles, status, supervise
from fmnist.search.job import nothing_to_do, tune
from fmnist.signals import Stop

logger = logging.getLogger(__name__)


def launch(
    run: RunDir,
    recipe: Recipe,
    seed: int,
    data_dir: Path | None,
    devices: str,
    precision: str,
    stop: Stop,
    *,
    workers: int | None = None,
    gpus_per_worker: int = 1,
) -> str | None:
    """Run the search in the role that the environment gives to this process, or the whole search if there is no role.

    Args:
        devices, precision: as `devices.request` takes them.
        workers: number of processes that train; None for what `supervise.shares` chooses. In the role of a worker, so
            many take its place and share its GPUs and processors; None for itself alone. A chief ignores it.
        gpus_per_worker: number of GPUs of each of them; ignored in a search on processors.

    Returns:
        The outcome of the search (`status.outcome`); None if there is no search, or if this process is a worker.

    Raises:
        BadInput: as `tune`; or the role, the devices or their division among the workers is not possible.
        Interrupted: a stop was requested; the same call continues.
        SearchFailed: every trial failed.
        SystemExit: with the exit code of a process that cannot continue.
    """
    choose = request(devices, precision)
    role = roles.from_environment()
    is_worker = role is not None and not role.is_chief
    if recipe.search and (role is None or is_worker):
        workers = 1 if is_worker and workers is None else workers
        gpus = supervise.gpus_to_share(devices, workers)
        shares = supervise.shares(workers, gpus_per_worker, gpus)
        if len(shares) > 1:
            # As this process was started: `-m fmnist` would find a folder of that name in the current one.
            command = [sys.executable, *sys.orig_argv[1:], supervise.ONE]
            if not nothing_to_do(run, recipe, seed):
                if role:
                    local.join(role, command, shares, stop)
                    return None
                if not run.config.exists():
                    # Before the folder is made, so that bad input leaves none.
                    if devices == "gpu" and not gpus:
                        raise BadInput("--devices gpu: this machine shows 0 GPU(s) to this job; try --devices cpu")
                    dataset.load_train(data_dir, recipe.data)
                run.claim(recipe, seed)
                local.run(run, command, shares, stop)
            return None if role else status.outcome(run, recipe)
        if role and len(gpus) > gpus_per_worker:
            logger.info("this worker takes the first of several GPUs; --workers or CUDA_VISIBLE_DEVICES divides them")
        if shares[0].gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares[0].visible_devices
    # The chief trains nothing, so it needs no GPU.
    return tune(run, recipe, seed, data_dir, request("cpu") if role and role.is_chief else choose, stop, role)
