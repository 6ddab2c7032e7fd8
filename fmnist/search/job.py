"""Run `tune`: a chief drives the trials of a search, `trial` trains them, and TensorBoard shows them."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmnist.data import dataset
from fmnist.data.dataset import TrainData
from fmnist.devices import Devices, numerics
from fmnist.errors import Failed, GpuFailed, Interrupted
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import status
from fmnist.search.roles import Role
from fmnist.signals import Stop
from fmnist.training.job import device_line

logger = logging.getLogger(__name__)


def tune(
    run: RunDir,
    recipe: Recipe,
    seed: int,
    data_dir: Path | None,
    choose: Callable[[], Devices],
    stop: Stop,
    role: Role | None = None,
) -> str | None:
    """Run the recipe's search to its end, or continue an interrupted one; write search/, trials.csv and best.json.

    Args:
        choose: returns the devices to train on; called only if there is something to train.
        role: the chief of the search or one of its workers; without a role this process is both.

    Returns:
        The outcome of the search (`status.outcome`); None if there is no search, or if this process is a worker.

    Raises:
        BadInput: the run folder is another run's, or the search space holds a value that the configuration refuses.
        Interrupted: a stop was requested; the next call continues the running trial from its last epoch.
        SearchFailed: every trial failed.
    """
    # The chief of a finished search must still tell the waiting workers that it is over.
    if (recipe.search is None or not (role and role.is_chief)) and nothing_to_do(run, recipe, seed):
        return status.outcome(run, recipe) if recipe.search and not role else None
    # Before the folder is made, so that bad input leaves none. The imports below take seconds.
    loaded = None if role and role.is_chief else dataset.load_train(data_dir, recipe.data)
    devices = choose()
    from fmnist.search import client, service

    run.claim(recipe, seed)
    if role and not role.is_chief:
        assert loaded
        client.join(run, recipe, role, _trials(run, recipe, seed, loaded, devices, stop, joined=True), stop)
        return None
    if role:
        service.serve(run, recipe, seed, role, stop)
    else:
        assert loaded
        _alone(run, recipe, seed, loaded, devices, stop)
    _remove_checkpoints(run)
    return status.outcome(run, recipe)


def _remove_checkpoints(run: RunDir) -> None:
    # They may lie where nothing can be written any more.
    with contextlib.suppress(OSError):
        for path in run.checkpoint.glob("trial_*"):
            path.unlink(missing_ok=True)


def nothing_to_do(run: RunDir, recipe: Recipe, seed: int) -> bool:
    """Tell whether the recipe is fixed, or its search is finished; if so, log that. TensorFlow is not imported.

    Raises:
        BadInput: as `tune`.
    """
    if recipe.search is None:
        run.claim(recipe, seed)
        logger.info("recipe %s is fixed: there is nothing to search", recipe.name)
        return True
    config.space(recipe)
    run.check(recipe, seed)
    if not (run.config.exists() and status.search_finished(run, recipe)):
        return False
    logger.info("the search in %s is finished; nothing to do", run)
    # The chief may have been ended before it could.
    _remove_checkpoints(run)
    return True


def _alone(run: RunDir, recipe: Recipe, seed: int, loaded: TrainData, devices: Devices, stop: Stop) -> None:
    from fmnist.search.chief import Chief
    from fmnist.search.worker import work

    with run.lock("tune"), status.live(run), stop.in_order():
        chief = Chief(run, recipe, seed)
        if not chief.finished:
            try:
                work(chief, "worker-0", _trials(run, recipe, seed, loaded, devices, stop), stop)
            except Interrupted:
                chief.close()
                raise


def _trials(
    run: RunDir, recipe: Recipe, seed: int, loaded: TrainData, devices: Devices, stop: Stop, *, joined: bool = False
) -> Any:
    """Return the function that trains a trial, a `search.worker.RunTrial`."""
    from fmnist.search.trial import Trials
    from fmnist.training.trainer import Trainer

    facts = numerics()
    if joined:
        # The workers divide the processors, perhaps unevenly.
        facts.pop("threads", None)
    run.record(
        "tune",
        devices=str(devices),
        data=loaded.source.sha256,
        numerics=facts,
        # The record may exist already: of an earlier process, or of another worker.
        goes_on=joined or run.trials.exists(),
    )
    logger.info("%s", device_line("tune", recipe, seed, devices))
    try:
        with devices.at_fault():
            trainer = Trainer(loaded, devices)
    except GpuFailed as error:
        if not joined:
            raise
        # No trial has failed. The process that replaces this one may find the GPU well.
        raise Failed(str(error)) from error
    return Trials(run, recipe, seed, trainer, stop).run
