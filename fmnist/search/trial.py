"""Train the trials of a search, each from its own checkpoint, its parent's, or the beginning."""

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any, NoReturn

from fmnist.errors import Restart, out_of_memory
from fmnist.files import copy, sha256, utf8_path
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import deaths
from fmnist.search.worker import Pruned, Report, TrialRequest
from fmnist.signals import Stop
from fmnist.training.boards import TrialBoard
from fmnist.training.footprint import TooLarge
from fmnist.training.job import pace
from fmnist.training.trainer import Trainer

logger = logging.getLogger(__name__)

# TensorFlow never frees a compiled program: about 18 MiB per network shape. After this many programs a process restarts
# itself, so that a search of any length stays below 2 GiB.
_PROGRAMS_A_PROCESS = 40
_NAME_LENGTH = 200  # characters of a folder's name; file systems allow 255 bytes


class Trials:
    """The trainer of a search's trials."""

    def __init__(self, run: RunDir, recipe: Recipe, seed: int, trainer: Trainer, stop: Stop) -> None:
        self._run = run
        self._recipe = recipe
        self._seed = seed
        self._trainer = trainer
        self._stop = stop

    def run(self, trial: TrialRequest, report: Report) -> None:
        """Train a trial up to its last epoch, from its own checkpoint, its parent's, or the beginning."""
        of_others = self._trainer.compiled
        if of_others >= _PROGRAMS_A_PROCESS:
            self._restart()
        recipe = config.replace(self._recipe, dict(trial.values))
        training = dataclasses.replace(recipe.training, epochs=trial.epochs)
        checkpoint = self._run.trial_checkpoint(trial.trial_id, trial.attempt)
        if trial.parent_trial_id and not checkpoint.exists():
            self._adopt(trial.parent_trial_id, checkpoint)
        objective = recipe.require_search().objective

        values = {name: _scalar(value) for name, value in trial.values.items()}
        told = (f"{value:.2g}" if isinstance(value, float) else str(value) for value in values.values())
        name = "_".join([trial.trial_id, *told])[:_NAME_LENGTH]
        board = TrialBoard(
            Path(utf8_path(self._run.tensorboard), "trials", name), f"{trial.trial_id} {self._run.name}", values
        )

        scores: list[float] = []

        def progress(epoch: int, metrics: dict[str, float], seconds: float, past: bool) -> None:
            if not past:
                logger.info(
                    "trial %s, epoch %*d/%d  loss %.3f  %s %.4f  %s",
                    *(trial.trial_id, len(str(trial.epochs)), epoch + 1, trial.epochs, metrics["loss"]),
                    *(objective, metrics[objective], pace(seconds, self._trainer.images)),
                )
            scores.append(metrics[objective])
            board.epoch(epoch, metrics)
            report(epoch, metrics)

        def end() -> None:
            best = (min if objective == "val_loss" else max)(scores)
            board.end(best, scores.index(best), len(scores))

        with deaths.counted(checkpoint.with_suffix(".deaths"), _digest(checkpoint)):
            try:
                with self._trainer.devices.at_fault():
                    self._trainer.fit(
                        recipe.model,
                        training,
                        # With another seed a retry need not fail for the same reason.
                        seed=self._seed + 1_000_000 * trial.attempt,
                        stop=self._stop,
                        checkpoint_path=checkpoint,
                        callbacks=[board.session],
                        progress=progress,
                    )
            except Pruned:
                board.session.on_train_end()
                end()
                raise
            except Exception as error:
                if (out_of_memory(error) or isinstance(error, TooLarge)) and of_others:
                    # It may be the networks of earlier trials that leave this one no room.
                    self._restart()
                raise
        end()

    def _restart(self) -> NoReturn:
        """Ask for a fresh process. The trial stays this worker's: the chief gives the same trial to the same id."""
        self._stop.check()
        logger.info("starting this process anew, to free the memory of %d networks", self._trainer.compiled)
        raise Restart

    def _adopt(self, parent: str, checkpoint: Path) -> None:
        """Copy the last checkpoint of a promoted trial's parent, for the trial to start from."""
        paths = self._run.checkpoint.glob("trial_*.npz")
        names = (re.fullmatch(rf"trial_{re.escape(parent)}_(\d+)\.npz", path.name) for path in paths)
        attempts = [int(name[1]) for name in names if name]
        if not attempts:
            logger.warning("the checkpoint of trial %s is gone; the trial promoted from it starts anew", parent)
            return
        # The parent's last attempt is the one that was completed.
        copy(self._run.trial_checkpoint(parent, max(attempts)), checkpoint)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint, in hexadecimal; an empty string if there is no checkpoint."""
    try:
        return sha256(path)
    except FileNotFoundError:
        return ""


def _scalar(value: Any) -> str | bool | int | float:
    """Convert a value to a scalar, since HParams holds only scalars: a list of units becomes "512-256-50"."""
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else value
