"""What `fmnist tune` is on this machine: a process of a search, the whole search, or what starts its processes."""

import os
import sys
from pathlib import Path

from fmnist import environment
from fmnist.devices import request
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import local, roles, supervise
from fmnist.search.job import nothing_to_do, tune
from fmnist.signals import Stop


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
) -> None:
    """Run the search in the role that the environment gives this process, or else all of it.

    Args:
        devices, precision: as `devices.request` takes them.
        workers: how many processes train; None for one a GPU, or one.
        gpus_per_worker: how many GPUs each of them has; of a search on processors it means nothing.

    Raises:
        BadInput: as `tune`; or a role, devices or shares of them that cannot be.
        Interrupted: a stop was requested; the same call goes on.
        SearchFailed: every trial failed.
        SystemExit: the exit code of a process that cannot go on.
    """
    choose = request(devices, precision)
    role = roles.from_environment()
    if role is None and recipe.search:
        gpus = environment.gpus() if devices in ("auto", "gpu") else []
        shares = supervise.shares(workers, gpus_per_worker, gpus)
        if len(shares) > 1:
            if not nothing_to_do(run, recipe, seed):
                run.claim(recipe, seed)
                local.run(run, [sys.executable, "-m", "fmnist", *sys.argv[1:]], shares, stop)
            return
        if shares[0].gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares[0].visible_devices
    # The chief computes nothing.
    tune(run, recipe, seed, data_dir, request("cpu") if role and role.is_chief else choose, stop, role)
