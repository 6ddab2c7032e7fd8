"""Serve the chief by gRPC, with Keras Tuner's own messages, so that stock workers connect, and additional metadata.

Our workers send in each call's metadata their id (`fmnist-worker`), an id of their process (`fmnist-instance`), since
several processes may have used the same worker's id, and a proof that they know the token (`proof`). A stock worker
names itself only in CreateTrial: its later reports count as those of the worker that has the trial. It sends no
heartbeats, so its lease is longer.
"""

import contextlib
import functools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
from keras_tuner.engine.trial import TrialStatus

from fmnist.errors import BadInput, Interrupted
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import roles, server
from fmnist.search.chief import Chief, NotYours
from fmnist.search.roles import Notice, Role
from fmnist.search.stock import protos
from fmnist.signals import Stop

logger = logging.getLogger(__name__)
# A malformed message gets an answer; it is not worth a traceback in the chief's log.
for _name in ("grpc._common", "grpc._cython.cygrpc"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

WORKER, INSTANCE = "fmnist-worker", "fmnist-instance"
"""Names of a worker's metadata: its id, and the id of its process."""
MESSAGE = "fmnist-message-bin"
"""Name of EndTrial's metadata that holds the reason of a failure, which the stock message leaves out."""
LEASE = "fmnist-lease"
"""Name of CreateTrial's trailing metadata that holds the seconds of silence after which the worker loses the trial."""
PAUSE = "fmnist-pause"
"""Name of CreateTrial's trailing metadata that holds the seconds after which a worker without a trial asks again."""
LEASE_SECONDS = 60.0
STOCK_LEASE_SECONDS = 3600.0  # the longest that Keras Tuner's own client waits
WAIT_SECONDS = 1.0
"""Seconds for which a worker waits for a trial in CreateTrial."""

_ASKING, _LONGEST_PAUSE = 50.0, 10.0  # calls a second of all workers that have no trial; the most seconds between two
_WAITING = server.THREADS // 2  # more would leave no thread for workers that report
_FAREWELL = 1.0  # seconds in which workers may still call, and learn that the search is over


def serve(run: RunDir, recipe: Recipe, seed: int, role: Role, stop: Stop, lease: float = LEASE_SECONDS) -> Chief:
    """Work as the chief: serve the search in `run` to its end.

    Args:
        lease: seconds of silence after which one of our workers loses its trial.

    Raises:
        BadInput: the run folder has a chief, the chief cannot listen on the address, or the address needs a token.
        Interrupted: a stop was requested.
    """
    with run.lock("tune"), stop.in_order():
        return _serve(run, recipe, seed, role, stop, lease)


def _serve(run: RunDir, recipe: Recipe, seed: int, role: Role, stop: Stop, lease: float) -> Chief:
    host = role.host or "127.0.0.1"
    if not roles.is_loopback(host) and not role.token:
        raise BadInput(f"the chief on {host} can be reached by others: give it and its workers FMNIST_TOKEN_FILE")
    chief = Chief(run, recipe, seed, grace=lease)
    servicer = Servicer(chief, lease)
    trials = recipe.require_search().trials
    register = functools.partial(protos.get_service_grpc().add_OracleServicer_to_server, servicer)
    with server.serving(role, host, register) as port:
        address = roles.join(_reachable(host), port)
        Notice(address, trials).write(run)
        logger.info("the chief of %s listens on %s", run, address)
        while not _is_over(chief, Notice(None, trials), run):
            if stop.requested:
                chief.close()
                raise Interrupted
        servicer.farewell(_FAREWELL)
    return chief


def _is_over(chief: Chief, farewell: Notice, run: RunDir) -> bool:
    """Wait half a second for the end of the search; return whether it has ended, and all of it is written.

    A failure to write is logged, and tried again by the next call: a full disk may have room later.
    """
    try:
        if over := chief.wait_finished(0.5):
            farewell.write(run)
    except OSError as error:
        logger.error("the search's state cannot be written: %s", error)
        time.sleep(0.5)
        return False
    return over


class Servicer(protos.get_service_grpc().OracleServicer):  # type: ignore[misc]
    """Keras Tuner's `Oracle` service for a `Chief`."""

    def __init__(self, chief: Chief, lease: float) -> None:
        self._chief = chief
        self._lease = lease
        self._messages = protos.get_service()
        # Keras Tuner prints while it packs the conditions of a space; stdout is for results.
        with contextlib.redirect_stdout(None):
            self._space = chief.space().to_proto()
        self._waiting = threading.Semaphore(_WAITING)
        self._callers = _Callers()

    def farewell(self, seconds: float) -> None:
        """Wait until every worker has learnt that the search is over, or `seconds` have passed."""
        self._callers.wait_none(seconds)

    def GetSpace(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._messages.GetSpaceResponse(hyperparameters=self._space)

    def UpdateSpace(self, request: Any, context: grpc.ServicerContext) -> Any:
        # Only the recipe defines the space.
        return self._messages.UpdateSpaceResponse()

    def CreateTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answering(context):
            instance = self._instance(context)
            worker = self._worker(context) or request.tuner_id
            if not 0 < len(worker) <= roles.ID_CHARACTERS:
                raise ValueError(f"a worker's id has 1 to {roles.ID_CHARACTERS} characters")
            self._callers.add(worker)
            lease = self._lease if instance else STOCK_LEASE_SECONDS
            may_wait = self._waiting.acquire(blocking=False)
            try:
                trial = self._chief.create_trial(worker, WAIT_SECONDS if may_wait else 0.0, lease)
            finally:
                if may_wait:
                    self._waiting.release()
            if trial.status == TrialStatus.STOPPED:
                self._callers.discard(worker)
            context.set_trailing_metadata([(LEASE, str(lease)), (PAUSE, str(self._pause()))])
            return self._messages.CreateTrialResponse(trial=trial.to_proto())

    def UpdateTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answering(context):
            worker = self._speaker(context, request.trial_id)
            trial = self._chief.update_trial(worker, request.trial_id, dict(request.metrics), request.step)
            return self._messages.UpdateTrialResponse(trial=trial.to_proto())

    def EndTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answering(context):
            worker = self._speaker(context, request.trial.trial_id)
            # Only the status is taken from the message: the oracle knows the trial's values.
            status = TrialStatus.from_proto(request.trial.status)
            message = _metadata(context).get(MESSAGE, b"").decode(errors="replace") or None
            self._chief.end_trial(worker, request.trial.trial_id, status, message)
            return self._messages.EndTrialResponse()

    def GetTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _answering(context):
            if self._instance(context):
                self._chief.renew(self._worker(context), request.trial_id)
            trial = self._chief.get_trial(request.trial_id)
            return self._messages.GetTrialResponse(trial=trial.to_proto())

    def _pause(self) -> float:
        """Return for how long a worker without a trial is to pause: the longer, the more of them there are."""
        idle = len(self._callers) - self._chief.running
        return min(max(WAIT_SECONDS, idle / _ASKING), _LONGEST_PAUSE)

    def _worker(self, context: grpc.ServicerContext) -> str:
        return _metadata(context).get(WORKER, "")

    def _instance(self, context: grpc.ServicerContext) -> str:
        """Return the id of the caller's process, empty for a stock worker; raise Superseded if there is a newer one."""
        instance = _metadata(context).get(INSTANCE, "")
        if instance and not self._callers.is_newest(self._worker(context), instance):
            raise Superseded(f"another process has taken the id {self._worker(context)} over")
        return instance

    def _speaker(self, context: grpc.ServicerContext, trial_id: str) -> str:
        """Return the worker that makes a call about a trial; raise NotYours if it is unknown."""
        worker = self._worker(context) if self._instance(context) else self._chief.holder(trial_id)
        if worker is None:
            raise NotYours(f"nobody has trial {trial_id}")
        return worker


class Superseded(Exception):
    """A newer process uses the caller's id."""


_CODES: dict[type[Exception], grpc.StatusCode] = {
    Superseded: grpc.StatusCode.ABORTED,
    NotYours: grpc.StatusCode.FAILED_PRECONDITION,
    KeyError: grpc.StatusCode.NOT_FOUND,
    ValueError: grpc.StatusCode.INVALID_ARGUMENT,
    # The disk may have room when the worker calls again.
    OSError: grpc.StatusCode.UNAVAILABLE,
}


@contextlib.contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer an exception of the chief with a gRPC status, in place of a traceback."""
    try:
        yield
    except tuple(_CODES) as error:
        if isinstance(error, OSError):
            logger.error("the search's state cannot be written: %s", error)
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        context.abort(code, str(error) or type(error).__name__)


def _metadata(context: grpc.ServicerContext) -> dict[str, Any]:
    return {item.key: item.value for item in context.invocation_metadata()}


class _Callers:
    """The workers that have asked for trials, and for each id its newest process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._present: set[str] = set()
        self._newest: dict[str, str] = {}
        self._superseded: set[str] = set()

    def __len__(self) -> int:
        with self._changed:
            return len(self._present)

    def add(self, worker: str) -> None:
        with self._changed:
            self._present.add(worker)

    def discard(self, worker: str) -> None:
        with self._changed:
            self._present.discard(worker)
            self._changed.notify_all()

    def wait_none(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._present, seconds)

    def is_newest(self, worker: str, instance: str) -> bool:
        with self._changed:
            if instance in self._superseded:
                return False
            before = self._newest.setdefault(worker, instance)
            if before != instance:
                logger.warning("another process works as %s; the one before is refused from now on", worker)
                self._superseded.add(before)
                self._newest[worker] = instance
            return True


def _reachable(host: str) -> str:
    """Return the name by which workers reach a chief that listens on `host`."""
    # Not getfqdn(): it returns "localhost" if this machine's name belongs to the loopback address, too.
    return socket.gethostname() if host in roles.EVERYWHERE else host
