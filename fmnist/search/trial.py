"""What a worker trains: the trials that a search asks for, each from its own checkpoint or its parent's."""

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams import api as hparams

from fmnist.errors import Restart
from fmnist.files import copy, sha256, utf8_path
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import deaths
from fmnist.search.worker import Report, TrialRequest
from fmnist.signals import Stop
from fmnist.training.boards import tensorboard
from fmnist.training.job import log_epochs
from fmnist.training.trainer import Trainer

logger = logging.getLogger(__name__)

# TensorFlow frees no program that it ever compiled: about 18 MiB a network shape. After this many a process starts
# itself anew, so that a search of any length stays below 2 GiB.
_PROGRAMS_A_PROCESS = 40
_NAME_LENGTH = 200  # of a folder; file systems take 255 bytes


class Trials:
    """Trains what the search asks for."""

    def __init__(self, run: RunDir, recipe: Recipe, seed: int, trainer: Trainer, stop: Stop) -> None:
        self._run = run
        self._recipe = recipe
        self._seed = seed
        self._trainer = trainer
        self._stop = stop

    def run(self, trial: TrialRequest, report: Report) -> None:
        """Train a trial to its epochs, from its own checkpoint, its parent's, or the beginning."""
        if self._trainer.compiled >= _PROGRAMS_A_PROCESS:
            # The trial stays this worker's: by its id it is given the same one again.
            self._stop.check()
            logger.info("starting this process anew, to free the memory of %d networks", self._trainer.compiled)
            raise Restart
        recipe = config.replace(self._recipe, dict(trial.values))
        training = dataclasses.replace(recipe.training, epochs=trial.epochs)
        checkpoint = self._checkpoint(trial.trial_id, trial.attempt)
        if trial.parent_trial_id and not checkpoint.exists():
            self._adopt(trial.parent_trial_id, checkpoint)
        log = log_epochs(trial.epochs, f"trial {trial.trial_id}, ")

        def progress(epoch: int, metrics: dict[str, float]) -> None:
            log(epoch, metrics)
            report(epoch, metrics)

        values = {name: _scalar(value) for name, value in trial.values.items()}
        # One folder a trial, so that TensorBoard's HParams page shows a trial as one session; its name says what it is.
        told = (f"{value:.2g}" if isinstance(value, float) else str(value) for value in values.values())
        name = "_".join([trial.trial_id, *told])[:_NAME_LENGTH]
        board = Path(utf8_path(self._run.tensorboard), "trials", name)
        with deaths.counted(checkpoint.with_suffix(".deaths"), _digest(checkpoint)):
            self._trainer.fit(
                recipe.model,
                training,
                # A retry of a failed trial must not fail in the same way for the same reason.
                seed=self._seed + 1_000_000 * trial.attempt,
                stop=self._stop,
                checkpoint_path=checkpoint,
                callbacks=[tensorboard(board), hparams.KerasCallback(str(board), values, trial_id=trial.trial_id)],
                progress=progress,
            )

    def _checkpoint(self, trial_id: str, attempt: int) -> Path:
        return self._run.checkpoint / f"trial_{trial_id}_{attempt}.npz"

    def _adopt(self, parent: str, checkpoint: Path) -> None:
        """Begin a promoted trial (Hyperband) with its parent's last checkpoint."""
        paths = self._run.checkpoint.glob("trial_*.npz")
        names = (re.fullmatch(rf"trial_{re.escape(parent)}_(\d+)\.npz", path.name) for path in paths)
        attempts = [int(name[1]) for name in names if name]
        if not attempts:
            logger.warning("the checkpoint of trial %s is gone; the trial promoted from it starts anew", parent)
            return
        # Its last attempt is the one that came to its end.
        copy(self._checkpoint(parent, max(attempts)), checkpoint)


def _digest(path: Path) -> str:
    """Tells one checkpoint from another; empty without one."""
    try:
        return sha256(path)
    except FileNotFoundError:
        return ""


def _scalar(value: Any) -> str | bool | int | float:
    """HParams holds scalars; the units of the hidden layers become 512-256-50."""
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else value
