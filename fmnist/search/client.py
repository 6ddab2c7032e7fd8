"""A worker's way to a chief elsewhere: the same methods, over gRPC, in spite of restarts and cut networks."""

import contextlib
import logging
import random
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos

from fmnist.errors import BadInput, Interrupted
from fmnist.rundir import RunDir
from fmnist.schema import Recipe
from fmnist.search import roles
from fmnist.search.chief import NotYours
from fmnist.search.guard import TOKEN
from fmnist.search.roles import Role
from fmnist.search.service import INSTANCE, LEASE, MESSAGE, WAIT_SECONDS, WORKER
from fmnist.search.worker import RunTrial, work
from fmnist.signals import Stop

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""How long a worker tries to reach its chief."""

_CALL_SECONDS = 10.0  # without an answer for so long, the connection is taken for dead
_PAUSES = (0.1, 3.0)  # seconds between two tries, the first and the longest
_TELL_SECONDS = 30.0  # between two lines about the same problem
_BEATS = 3  # signs of life a lease
_CODES = {
    grpc.StatusCode.FAILED_PRECONDITION: NotYours,
    grpc.StatusCode.NOT_FOUND: NotYours,
    grpc.StatusCode.INVALID_ARGUMENT: ValueError,
    grpc.StatusCode.ABORTED: BadInput,
    grpc.StatusCode.UNAUTHENTICATED: BadInput,
}


def join(
    run: RunDir, recipe: Recipe, role: Role, run_trial: RunTrial, stop: Stop, patience: float = PATIENCE_SECONDS
) -> None:
    """Be the worker `role.id`: run trials of the search in `run` until it is over.

    Args:
        patience: seconds to wait for the chief, before the first call and at any later one.

    Raises:
        Interrupted: a stop was requested, or there was no chief for too long.
        BadInput: the chief refuses this worker.
    """
    chief = RemoteChief(run, role, recipe.require_search().trials, stop, patience)
    try:
        work(chief, role.id, run_trial, stop)
    finally:
        chief.close()


class SearchOver(Exception):
    """The chief has left, and the run folder says that the search is finished."""


class RemoteChief:
    """What a worker needs of a `Chief` (`worker.ChiefLike`), for the worker `role.id` alone.

    While a trial is in hand a thread tells the chief that this process lives, so that an epoch may take any time.
    Every call may raise

        Interrupted: a stop was requested, or the chief could not be reached within `patience` seconds.
        BadInput: the chief refuses this worker.
    """

    def __init__(self, run: RunDir, role: Role, trials: int, stop: Stop, patience: float = PATIENCE_SECONDS) -> None:
        """Nothing is connected yet.

        Args:
            trials: of the search that is wanted; an ended one with fewer is not it.
        """
        self._find = _Finder(run, role, trials)
        self._messages = protos.get_service()
        self._trials = protos.get_proto()
        self._stop = stop
        self._patience = patience
        self._calls = _Connection(self._find)
        self._heart = _Heart(_Connection(self._find))

    def create_trial(self, worker_id: str, wait: float = 0.0) -> Trial:
        begin = time.monotonic()
        try:
            answer, metadata = self._call("CreateTrial", self._messages.CreateTrialRequest(tuner_id=worker_id))
        except SearchOver:
            return Trial(HyperParameters(), trial_id="", status=TrialStatus.STOPPED)
        trial = Trial.from_proto(answer.trial)
        if trial.status == TrialStatus.RUNNING:
            self._heart.start(trial.trial_id, float(metadata[LEASE]) / _BEATS)
        elif trial.status == TrialStatus.IDLE:
            # A chief with many waiting workers answers at once. Not all of them should come back together.
            self._stop.wait(max(0.0, wait * random.uniform(0.5, 1.5) - (time.monotonic() - begin)))
        return trial

    def update_trial(self, worker_id: str, trial_id: str, metrics: Mapping[str, float], step: int) -> Trial:
        with self._losing():
            request = self._messages.UpdateTrialRequest(trial_id=trial_id, metrics=metrics, step=step)
            return Trial.from_proto(self._call("UpdateTrial", request)[0].trial)

    def end_trial(self, worker_id: str, trial_id: str, status: str, message: str | None = None) -> None:
        ended = self._trials.Trial(trial_id=trial_id, status=TrialStatus.to_proto(status))
        reason = ((MESSAGE, message.encode(errors="backslashreplace")),) if message else ()
        with self._losing():
            self._call("EndTrial", self._messages.EndTrialRequest(trial=ended), reason)
        self._heart.stop()

    def close(self) -> None:
        """Let go of the chief."""
        self._heart.close()
        self._calls.close()

    def _call(self, method: str, request: Any, metadata: tuple[Any, ...] = ()) -> tuple[Any, dict[str, Any]]:
        deadline = time.monotonic() + self._patience
        pause, longest = _PAUSES
        told, tell_again = "", 0.0
        while True:
            try:
                return self._calls.call(method, request, metadata, _CALL_SECONDS + WAIT_SECONDS)
            except grpc.RpcError as error:
                if error.code() in _CODES:
                    raise _CODES[error.code()](error.details()) from None
                problem = f"{error.code().name}, {error.details()}"
            except _NotFound as error:
                problem = str(error)
            self._find.check_over()
            if time.monotonic() > deadline:
                logger.error(
                    "no chief for %.0f s (%s); start this worker again when there is one", self._patience, problem
                )
                raise Interrupted
            if problem != told or time.monotonic() > tell_again:
                logger.info("waiting for the chief (%s)", problem)
                told, tell_again = problem, time.monotonic() + _TELL_SECONDS
            if self._stop.wait(pause * random.uniform(0.5, 1.0)):
                raise Interrupted
            pause = min(2 * pause, longest)

    @contextlib.contextmanager
    def _losing(self) -> Any:
        """A trial that is no longer ours needs no sign of life; nor does one whose search is over without it."""
        try:
            yield
        except NotYours:
            self._heart.stop()
            raise
        except SearchOver as error:
            self._heart.stop()
            raise NotYours(str(error)) from None


class _NotFound(Exception):
    """There is no chief yet."""


class _Finder:
    """Where the chief is, and how to call it."""

    def __init__(self, run: RunDir, role: Role, trials: int) -> None:
        self._run = run
        self._role = role
        self._wanted = trials
        self.metadata: tuple[tuple[str, str], ...] = ((WORKER, role.id), (INSTANCE, uuid.uuid4().hex))
        if role.token:
            self.metadata += ((TOKEN, f"Bearer {role.token}"),)

    def check_over(self) -> None:
        """Raise SearchOver if the run folder says that the search is finished."""
        notice = roles.read_notice(self._run)
        if notice and notice.address is None and notice.trials >= self._wanted:
            raise SearchOver(f"the search in {self._run} is finished")

    def channel(self) -> grpc.Channel:
        address = self._address()
        options = [
            # Its own connection, with no memory of how long the last one has been failing.
            ("grpc.use_local_subchannel_pool", 1),
            # A site's proxy leads out of the site; the chief is within.
            ("grpc.enable_http_proxy", 0),
        ]
        if self._role.certificate:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(self._role.certificate), options)
        return grpc.insecure_channel(address, options)

    def _address(self) -> str:
        if self._role.host and self._role.port:
            return roles.join(self._role.host, self._role.port)
        notice = roles.read_notice(self._run)
        if notice is None or notice.address is None:
            raise _NotFound(f"none has written {self._run.chief}")
        return notice.address


class _Connection:
    """Calls, each over the connection of the one before as long as that works."""

    def __init__(self, find: _Finder) -> None:
        self._find = find
        self._channel: grpc.Channel | None = None

    def call(self, method: str, request: Any, metadata: tuple[Any, ...], timeout: float) -> tuple[Any, dict[str, Any]]:
        """The answer, and its trailing metadata.

        Raises:
            grpc.RpcError: as gRPC says.
            _NotFound: nobody to call.
        """
        if self._channel is None:
            self._channel = self._find.channel()
        stub = getattr(protos.get_service_grpc().OracleStub(self._channel), method)
        try:
            answer, call = stub.with_call(request, metadata=self._find.metadata + metadata, timeout=timeout)
        except grpc.RpcError as error:
            if error.code() not in _CODES:
                self.close()
            raise
        return answer, dict(call.trailing_metadata())

    def close(self) -> None:
        if self._channel:
            self._channel.close()
            self._channel = None


class _Heart:
    """A thread that renews the lease of the trial in hand."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._trial: str | None = None
        self._interval = 1.0
        self._closed = False
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def start(self, trial_id: str, interval: float) -> None:
        with self._changed:
            self._trial, self._interval = trial_id, interval
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._trial = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._trial)
                self._changed.wait_for(lambda: self._closed, self._interval)
                trial, interval = self._trial, self._interval
                if self._closed:
                    self._connection.close()
                    return
            if trial:
                self._beat(trial, interval)

    def _beat(self, trial: str, timeout: float) -> None:
        request = protos.get_service().GetTrialRequest(trial_id=trial)
        # Whether it was heard, the next report will tell.
        with contextlib.suppress(grpc.RpcError, _NotFound):
            self._connection.call("GetTrial", request, (), timeout)
