"""Identify a run's model by the SHA-256 of its file, so that no figures of another model are shown beside it."""

import logging
from collections.abc import Mapping
from typing import Any

from fmnist.errors import BadInput
from fmnist.files import sha256
from fmnist.run import records
from fmnist.run.folder import RunDir

logger = logging.getLogger(__name__)


def of_model(run: RunDir, *, stands_alone: bool = False) -> str:
    """Return the SHA-256 of the run's model.keras, after a check that the run's training wrote this file.

    The history.json of older versions does not name the model; with one of those, any model is accepted.

    Args:
        stands_alone: whether the result will not be shown beside figures of the trained model. Another model is then
            accepted with a warning.

    Raises:
        BadInput: there is no model, or it is another one.
    """
    while True:
        trained = _trained(run)
        try:
            found = sha256(run.model)
        except FileNotFoundError as error:
            raise BadInput(f"{run.model} is missing; run `fmnist train` first") from error
        if trained in (None, found):
            return found
        # If history.json has changed meanwhile, a training has just replaced both files: look again.
        if trained == _trained(run):
            said = f"{run.model} is not the model that was trained here, which {run.history.name} tells of"
            if not stands_alone:
                raise BadInput(f"{said}; put that one back, or remove it and run `fmnist train` again")
            logger.warning("%s", said)
            return found


def check_unchanged(run: RunDir, model: str) -> None:
    """Check that the run still holds the model with this SHA-256, within `RunDir.changing` if a write depends on it.

    Raises:
        BadInput: it holds another one.
    """
    if sha256(run.model) != model:
        raise BadInput(f"{run.model} was replaced meanwhile, so nothing is written; run the same command again")


def check_shown(run: RunDir, training: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Check that history.json and metrics.json are about the same model, and about model.keras if it exists.

    Raises:
        BadInput: they are not.
    """
    judged = metrics["model"]["sha256"]
    trained = training.get("model", {}).get("sha256", judged)
    if judged != trained or (run.model.exists() and judged != of_model(run)):
        raise BadInput(f"{run.metrics} is not of the model that {run} holds now; run `fmnist eval {run}` again")


def _trained(run: RunDir) -> str | None:
    if not run.history.exists():
        return None
    return records.read(run.history, records.History).get("model", {}).get("sha256")
