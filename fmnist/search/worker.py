"""Work on a search: take a trial from the chief, run it, report its result, and take the next one."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.errors import GpuFailed, explain, first_line, out_of_memory
from fmnist.search import space
from fmnist.search.chief import NotYours
from fmnist.search.record import PRUNED
from fmnist.search.reports import SECONDS
from fmnist.signals import Stop

logger = logging.getLogger(__name__)

_WAIT = 1.0  # seconds between two looks at whether a stop was requested, while there is no trial to run


@dataclass(frozen=True)
class TrialRequest:
    """The trial that a worker is to train.

    Attributes:
        trial_id: the trial's name, which stays the same when it is taken up again.
        values: values by dotted configuration key, as `config.replace` takes them.
        epochs: number of epochs to train up to, those of the parent included.
        initial_epoch: the epoch to train from, counted from 0; above 0 only with a parent.
        parent_trial_id: the trial whose checkpoint to start from, if this one is promoted; None without a parent.
        attempt: number of failed runs of this trial, and of those that it was promoted from. A new attempt starts from
            the beginning, with another seed; the same attempt continues from its checkpoint, or its parent's.
    """

    trial_id: str
    values: Mapping[str, Any]
    epochs: int
    initial_epoch: int = 0
    parent_trial_id: str | None = None
    attempt: int = 0


class Pruned(Exception):
    """The trial is not worth further epochs."""


class Report(Protocol):
    """A function that reports an epoch, counted from 0, to the chief; it raises Pruned if the trial is to end here."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None: ...


class RunTrial(Protocol):
    """A function that trains the requested trial.

    It reports each epoch before it saves the epoch's checkpoint, so that no epoch goes unreported; an epoch that is
    trained again, or read from a checkpoint, is reported again. `Pruned` completes the trial, another exception fails
    it; only after `Interrupted` and an error of the file system it can be taken up again.
    """

    def __call__(self, trial: TrialRequest, report: Report) -> None: ...


class ChiefLike(Protocol):
    """The methods of a `Chief`, in this process or another one, that a worker needs."""

    def create_trial(self, worker_id: str, wait: float = 0.0) -> Trial: ...
    def update_trial(self, worker_id: str, trial_id: str, metrics: Mapping[str, float], step: int) -> Trial: ...
    def end_trial(self, worker_id: str, trial_id: str, status: str, message: str | None = None) -> None: ...


def work(chief: ChiefLike, worker_id: str, run_trial: RunTrial, stop: Stop) -> None:
    """Run trials until the search is over.

    If a trial raises an exception, it has failed, and the search continues. An exception of the chief is not the
    trial's failure: it ends the work.

    Raises:
        GpuFailed: the current trial has failed, and the next one would.
        Interrupted: a stop was requested; the current trial can be taken up again.
    """
    while True:
        stop.check()
        trial = chief.create_trial(worker_id, _WAIT)
        if trial.status == TrialStatus.STOPPED:
            return
        if trial.status == TrialStatus.RUNNING:
            try:
                _run(chief, worker_id, run_trial, _request(trial))
            except NotYours as error:
                logger.warning("%s: leaving it", error)


def _run(chief: ChiefLike, worker_id: str, run_trial: RunTrial, request: TrialRequest) -> None:
    reporter = _Reporter(chief, worker_id, request)
    try:
        run_trial(request, reporter)
    except Pruned as pruned:
        chief.end_trial(worker_id, request.trial_id, TrialStatus.COMPLETED, str(pruned))
    except Exception as error:
        if error is reporter.refusal or explain(error):
            raise
        reason = _reason(error)
        logger.warning("trial %s failed: %s", request.trial_id, reason)
        chief.end_trial(worker_id, request.trial_id, TrialStatus.INVALID, reason)
        if isinstance(error, GpuFailed):
            # A broken GPU would fail all trials, one after another.
            raise
    else:
        chief.end_trial(worker_id, request.trial_id, TrialStatus.COMPLETED)


class _Reporter:
    """A trial's `Report`. It remembers an exception of the chief, which passes through the trial's code."""

    def __init__(self, chief: ChiefLike, worker_id: str, request: TrialRequest) -> None:
        self._chief = chief
        self._worker_id = worker_id
        self._request = request
        self._last = time.monotonic()
        self.refusal: Exception | None = None

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ArithmeticError(f"{name} is {value} after epoch {epoch + 1}")
        now = time.monotonic()
        timed = {**metrics, SECONDS: now - self._last}
        self._last = now
        try:
            trial = self._chief.update_trial(self._worker_id, self._request.trial_id, timed, epoch)
            if len(trial.metrics.get_history(SECONDS)) <= epoch - self._request.initial_epoch:
                # The chief's disk has restored an earlier state. Taken up again, the trial reports all its epochs.
                raise NotYours(f"the chief has forgotten epochs of trial {trial.trial_id}")
        except Exception as error:
            self.refusal = error
            raise
        if trial.status == TrialStatus.STOPPED and epoch + 1 < self._request.epochs:
            raise Pruned(f"{PRUNED} after epoch {epoch + 1} of {self._request.epochs}")


def _request(trial: Trial) -> TrialRequest:
    values = trial.hyperparameters.values
    return TrialRequest(
        trial_id=trial.trial_id,
        values=space.values(trial.hyperparameters),
        epochs=values["tuner/epochs"],
        initial_epoch=values["tuner/initial_epoch"],
        parent_trial_id=values.get("tuner/trial_id"),
        attempt=values["tuner/attempt"],
    )


def _reason(error: Exception) -> str:
    """Return the reason of a failure as one line for a table."""
    if out_of_memory(error):
        return "out of memory"
    return first_line(error)
