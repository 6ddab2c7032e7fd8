"""A worker's signs of life: they say that the training goes on, not only that there is a process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from fmnist.errors import BadInput
from fmnist.search.connection import Connection, NotFound
from fmnist.search.stock import protos

BEATS = 3
"""Signs of life a lease."""

_SLOWER = 10  # times the longest epoch of a trial that another may take
_IDLE_SHARE = 0.02  # of a processor: a training takes more, if only to drive a GPU


class Watch:
    """Tells a training that has come to a stop from a slow one, a beat at a time.

    An epoch may take ten times the trial's longest so far. Where none is known, a process that computes has 240 leases
    (the first epoch compiles, and a large network is slow), one that does nothing has 20; later epochs have never less
    than 20 and 2. Time is counted in beats, so that a machine that slept, or was too busy for this thread, has time.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._longest = 0.0
        self.progress()

    def progress(self, longest: float = 0.0) -> None:
        """Something was done: it is not the training that is waited for, or an epoch has ended.

        Args:
            longest: seconds of the trial's longest epoch, if one has ended.
        """
        self._longest = max(self._longest, longest)
        self._waited = self._idle = 0.0

    def beat(self, seconds: float, cpu_seconds: float) -> bool:
        """Let time pass; return whether the training has come to a stop.

        Args:
            seconds: since the last beat, as they should be.
            cpu_seconds: what this process has computed meanwhile.
        """
        self._waited += seconds
        self._idle = self._idle + seconds if cpu_seconds < _IDLE_SHARE * seconds else 0.0
        known = _SLOWER * self._longest
        may_idle = max(2 * self._lease, known) if known else 20 * self._lease
        may_take = max(20 * self._lease, known) if known else 240 * self._lease
        return self._idle > may_idle or self._waited > may_take


class Heart:
    """A thread that renews the lease of the trial in hand for as long as that makes progress."""

    def __init__(self, connection: Connection, stalled: Callable[[str], None]) -> None:
        """`stalled` is called once with a trial that has come to a stop, whose lease is not renewed any more."""
        self._connection = connection
        self._stalled = stalled
        self._changed = threading.Condition()
        self._trial: str | None = None
        self._watch = Watch(0.0)
        self._interval = 1.0
        self._asking = self._closed = False
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def start(self, trial_id: str, lease: float) -> None:
        with self._changed:
            self._trial, self._interval, self._watch = trial_id, lease / BEATS, Watch(lease)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._trial = None

    def progress(self, longest: float) -> None:
        """As `Watch.progress`."""
        with self._changed:
            self._watch.progress(longest)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Count no time against the training while it is the chief that is waited for."""
        with self._changed:
            self._asking = True
        try:
            yield
        finally:
            with self._changed:
                self._asking = False
                self._watch.progress()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._trial)
                before = time.process_time()
                self._changed.wait_for(lambda: self._closed, self._interval)
                trial, interval = self._trial, self._interval
                if self._closed:
                    self._connection.close()
                    return
                if trial and not self._asking and self._watch.beat(interval, time.process_time() - before):
                    self._trial = None
                    stalled = trial
                else:
                    stalled = None
            if stalled:
                self._stalled(stalled)
            elif trial:
                self._beat(trial, interval)

    def _beat(self, trial: str, timeout: float) -> None:
        request = protos.get_service().GetTrialRequest(trial_id=trial)
        # Whether it was heard, the next report will tell.
        with contextlib.suppress(grpc.RpcError, NotFound, BadInput):
            self._connection.call("GetTrial", request, (), timeout)
