"""Which model a run holds, by the SHA-256 of its file: what is said of another one is not shown beside it."""

import logging
from collections.abc import Mapping
from typing import Any

from fmnist.errors import BadInput
from fmnist.files import sha256
from fmnist.run import records
from fmnist.run.folder import RunDir

logger = logging.getLogger(__name__)


def of_model(run: RunDir, *, stands_alone: bool = False) -> str:
    """The SHA-256 of the run's model.keras, which is the one that was trained here.

    The history.json of older versions does not tell that; there any model will do.

    Args:
        stands_alone: whether what is made of it will be beside nothing that is said of the one that was trained: that
            it is another one is then a warning.

    Raises:
        BadInput: there is no model, or another one.
    """
    while True:
        trained = _trained(run)
        try:
            found = sha256(run.model)
        except FileNotFoundError as error:
            raise BadInput(f"{run.model} is missing; run `fmnist train` first") from error
        if trained in (None, found):
            return found
        # Unless a training has just replaced both.
        if trained == _trained(run):
            said = f"{run.model} is not the model that was trained here, which {run.history.name} tells of"
            if not stands_alone:
                raise BadInput(f"{said}; put that one back, or remove it and run `fmnist train` again")
            logger.warning("%s", said)
            return found


def check_unchanged(run: RunDir, model: str) -> None:
    """Check that the run still holds the `model` that something was made from; within `RunDir.changing`.

    Raises:
        BadInput: it holds another one.
    """
    if sha256(run.model) != model:
        raise BadInput(f"{run.model} was replaced meanwhile, so nothing is written; run the same command again")


def check_shown(run: RunDir, training: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Check that what history.json and metrics.json say is of one model, and of model.keras, if that is there.

    Raises:
        BadInput: it is not.
    """
    judged = metrics["model"]["sha256"]
    trained = training.get("model", {}).get("sha256", judged)
    if judged != trained or (run.model.exists() and judged != of_model(run)):
        raise BadInput(f"{run.metrics} is not of the model that {run} holds now; run `fmnist eval {run}` again")


def _trained(run: RunDir) -> str | None:
    if not run.history.exists():
        return None
    return records.read(run.history, records.History).get("model", {}).get("sha256")
