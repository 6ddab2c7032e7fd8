"""Send a worker's heartbeats, as long as its training makes progress; a living process is not enough."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from fmnist.errors import BadInput
from fmnist.search.connection import Connection, NotFound
from fmnist.search.stock import protos

BEATS = 3
"""Number of heartbeats per lease."""

_SLOWER = 10  # an epoch may take this many times the trial's longest one so far
_IDLE_SHARE = 0.02  # of a processor: a training takes more, if only to drive a GPU


class Watch:
    """A watch over a training that tells, beat by beat, whether it hangs or is only slow.

    An epoch may take ten times the trial's longest one so far. For the first epoch a process that computes has 240
    leases (it compiles, and a large network is slow), an idle process has 20. Later epochs have at least 20 leases, or
    2 if the process is idle. Time is counted in beats, so time in which the machine slept, or had no time for this
    thread, does not count.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._longest = 0.0
        self.progress()

    def progress(self, longest: float = 0.0) -> None:
        """Note progress, and count from zero again: an epoch has ended, or the worker has waited for the chief.

        Args:
            longest: seconds of the trial's longest epoch; 0 if none is known.
        """
        self._longest = max(self._longest, longest)
        self._waited = self._idle = 0.0

    def beat(self, seconds: float, cpu_seconds: float) -> bool:
        """Count a beat; return whether the training hangs.

        Args:
            seconds: the nominal time since the last beat.
            cpu_seconds: the processor time that this process has used since then.
        """
        self._waited += seconds
        self._idle = self._idle + seconds if cpu_seconds < _IDLE_SHARE * seconds else 0.0
        known = _SLOWER * self._longest
        may_idle = max(2 * self._lease, known) if known else 20 * self._lease
        may_take = max(20 * self._lease, known) if known else 240 * self._lease
        return self._idle > may_idle or self._waited > may_take


class Heart:
    """A thread that renews the lease of the worker's trial as long as its training makes progress."""

    def __init__(self, connection: Connection, stalled: Callable[[str], None]) -> None:
        """Start the thread.

        Args:
            stalled: called once with a trial whose training hangs; its lease is not renewed any more.
        """
        self._connection = connection
        self._stalled = stalled
        self._changed = threading.Condition()
        self._trial: str | None = None
        self._watch = Watch(0.0)
        self._interval = 1.0
        self._asking = self._answered = self._closed = False
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def start(self, trial_id: str, lease: float) -> None:
        with self._changed:
            self._trial, self._interval, self._watch = trial_id, lease / BEATS, Watch(lease)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._trial = None

    def progress(self, longest: float) -> None:
        """Note progress, as in `Watch.progress`."""
        with self._changed:
            self._watch.progress(longest)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Count no time against the training during the block, in which the worker waits for the chief.

        An answer has renewed the lease, so the next heartbeat is left out.
        """
        with self._changed:
            self._asking = True
        try:
            yield
            self._answered = True
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
                answered, self._answered = self._answered, False
            if stalled:
                self._stalled(stalled)
            elif trial and not answered:
                self._beat(trial, interval)

    def _beat(self, trial: str, timeout: float) -> None:
        request = protos.get_service().GetTrialRequest(trial_id=trial)
        # A failure does not matter: the next report will show whether the trial is still this worker's.
        with contextlib.suppress(grpc.RpcError, NotFound, BadInput):
            self._connection.call("GetTrial", request, (), timeout)
