"""Call a chief in another process by gRPC, with the methods of `Chief`, through restarts and network failures."""

import contextlib
import functools
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.errors import EXIT_INTERRUPTED, Interrupted
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import deaths
from fmnist.search.chief import NotYours
from fmnist.search.connection import SAID, Connection, Finder, NotFound, SearchOver
from fmnist.search.heart import Heart
from fmnist.search.reports import SECONDS
from fmnist.search.roles import Role
from fmnist.search.service import LEASE, MESSAGE, PAUSE, WAIT_SECONDS
from fmnist.search.stock import protos
from fmnist.search.worker import RunTrial, work
from fmnist.signals import Stop

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""Seconds for which a worker tries to reach its chief."""

_CALL_SECONDS = 10.0  # seconds without an answer after which a connection counts as dead
_PAUSES = (0.1, 3.0)  # seconds between two tries, the first and the longest
_LAST_WORDS = 10  # seconds in which a process that ends itself may still log
_USUAL_SECONDS = 10.0  # that a chief may take to start, which is not worth a line
_TELL_SECONDS = 30.0  # between two lines about the same problem


def join(
    run: RunDir, recipe: Recipe, role: Role, run_trial: RunTrial, stop: Stop, patience: float = PATIENCE_SECONDS
) -> None:
    """Work as the worker `role.id`: run trials of the search in `run` until it is over.

    Args:
        patience: seconds to wait for the chief's answer to a call, the first one included.

    Raises:
        Interrupted: a stop was requested, or no chief could be reached for too long.
        BadInput: the chief refuses this worker.
    """
    chief = RemoteChief(run, role, recipe.require_search().trials, stop, patience, functools.partial(_end_process, run))
    try:
        with stop.in_order():
            work(chief, role.id, run_trial, stop)
    finally:
        chief.close()


def _end_process(run: RunDir, trial: str) -> None:
    """End this process, whose training hangs. Another worker continues the trial from its last checkpoint.

    It counts as a crash of the trial's own, so one that always hangs fails at last.
    """
    signal.alarm(_LAST_WORDS)  # nothing handles SIGALRM, so it ends the process if a disk hangs, too
    logger.error("trial %s has come to a stop; this worker ends, and the trial goes on elsewhere", trial)
    with contextlib.suppress(OSError):
        for path in run.checkpoint.glob(f"trial_{trial}_*.deaths"):
            deaths.tell(path, "its training came to a stop")
    logging.shutdown()
    os._exit(EXIT_INTERRUPTED)


class RemoteChief:
    """The methods of a `Chief` that a worker needs (`worker.ChiefLike`), for the worker `role.id` only.

    While the worker has a trial, a thread renews its lease as long as the training makes progress, so an epoch may take
    long. Every call may raise

        Interrupted: a stop was requested, or the chief could not be reached within `patience` seconds.
        BadInput: the chief refuses this worker.
    """

    def __init__(
        self,
        run: RunDir,
        role: Role,
        trials: int,
        stop: Stop,
        patience: float = PATIENCE_SECONDS,
        stalled: Callable[[str], None] = lambda _trial: None,
    ) -> None:
        """Prepare the calls; connect with the first one.

        Args:
            trials: number of trials of the wanted search; a finished search with fewer is another one.
            stalled: called, from another thread, with a trial whose training hangs; its lease is not renewed any more.
        """
        self._find = Finder(run, role, trials)
        self._messages = protos.get_service()
        self._trials = protos.get_proto()
        self._stop = stop
        self._patience = patience
        self._calls = Connection(self._find)
        self._heart = Heart(Connection(self._find), stalled)

    def create_trial(self, worker_id: str, wait: float = 0.0) -> Trial:
        begin = time.monotonic()
        try:
            answer, metadata = self._call("CreateTrial", self._messages.CreateTrialRequest(tuner_id=worker_id))
        except SearchOver:
            return Trial(HyperParameters(), trial_id="", status=TrialStatus.STOPPED)
        trial = Trial.from_proto(answer.trial)
        if trial.status == TrialStatus.RUNNING:
            self._heart.start(trial.trial_id, float(metadata[LEASE]))
        elif trial.status == TrialStatus.IDLE:
            # A chief with many waiting workers answers at once. They should not all call again at the same time.
            pause = float(metadata[PAUSE]) if wait else 0.0
            self._stop.wait(max(0.0, pause * random.uniform(0.5, 1.5) - (time.monotonic() - begin)))
        return trial

    def update_trial(self, worker_id: str, trial_id: str, metrics: Mapping[str, float], step: int) -> Trial:
        with self._losing():
            request = self._messages.UpdateTrialRequest(trial_id=trial_id, metrics=metrics, step=step)
            trial = Trial.from_proto(self._call("UpdateTrial", request)[0].trial)
        # The chief's seconds, not ours: an epoch that is read from a checkpoint is reported again after no time.
        seconds = [seen.value[0] for seen in trial.metrics.get_history(SECONDS)]
        self._heart.progress(max(seconds, default=0.0))
        return trial

    def end_trial(self, worker_id: str, trial_id: str, status: str, message: str | None = None) -> None:
        ended = self._trials.Trial(trial_id=trial_id, status=TrialStatus.to_proto(status))
        reason = ((MESSAGE, message.encode(errors="backslashreplace")),) if message else ()
        with self._losing():
            self._call("EndTrial", self._messages.EndTrialRequest(trial=ended), reason)
        self._heart.stop()

    def close(self) -> None:
        """Close the connections to the chief."""
        self._heart.close()
        self._calls.close()

    def _call(self, method: str, request: Any, metadata: tuple[Any, ...] = ()) -> tuple[Any, dict[str, Any]]:
        with self._heart.asking():
            return self._call_until_answered(method, request, metadata)

    def _call_until_answered(self, method: str, request: Any, metadata: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        begin = time.monotonic()
        pause, longest = _PAUSES
        told, tell_again = "", begin + _USUAL_SECONDS
        while True:
            try:
                return self._calls.call(method, request, metadata, _CALL_SECONDS + WAIT_SECONDS)
            except grpc.RpcError as error:
                if error.code() in SAID:
                    raise SAID[error.code()](error.details()) from None
                problem = f"{error.code().name}, {error.details()}"
            except NotFound as error:
                problem = str(error)
            self._find.check_over()
            now = time.monotonic()
            if now > begin + self._patience:
                logger.error(
                    "no chief for %.0f s (%s); start this worker again when there is one", self._patience, problem
                )
                raise Interrupted
            if now > tell_again or (told and problem != told):
                logger.warning("waiting for the chief (%s)", problem)
                told, tell_again = problem, now + _TELL_SECONDS
            if self._stop.wait(pause * random.uniform(0.5, 1.0)):
                raise Interrupted
            pause = min(2 * pause, longest)

    @contextlib.contextmanager
    def _losing(self) -> Any:
        """Stop renewing the lease if the trial is no longer this worker's, or if the search has ended without it."""
        try:
            yield
        except NotYours:
            self._heart.stop()
            raise
        except SearchOver as error:
            self._heart.stop()
            raise NotYours(str(error)) from None
