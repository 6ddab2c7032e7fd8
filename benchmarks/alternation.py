"""Two runs measured in turn, pair by pair, so that a drift of the machine hits both."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from .cases import Run
from .table import Figure
from .worker import FirstEpoch, Unavailable, Worker

logger = logging.getLogger(__name__)

_WARM_UP_EPOCHS = 1

Samples = tuple[float, ...]
Ratio = Callable[[Samples, Samples], Samples]


class Alternation:
    """Measures runs in pairs, and keeps their processes warm for the next figure, until it is closed."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}
        self.first_epoch_seconds: dict[str, float] = {}

    def __enter__(self) -> "Alternation":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def epochs(self, name: str, ratio: Ratio, ours: Run, theirs: Run, note: str = "") -> Figure:
        """Seconds of an epoch past the compilation."""
        try:
            return _figure(name, ratio, ours, self._pairs_of_epochs(ours, theirs), note=note)
        except Unavailable as error:
            return Figure(name, str(ours.case), note=str(error))

    def first_epoch_and_memory(self, ratio: Ratio, ours: Run, theirs: Run) -> tuple[Figure, Figure]:
        """Seconds and peak memory of the first epoch, with validation, each in a process of its own."""
        names = ("first epoch, with compilation, over model.fit", "peak memory over model.fit")
        try:
            pairs = [(self._fresh(ours), self._fresh(theirs)) for _ in range(self._pairs)]
        except Unavailable as error:
            first, second = (Figure(name, str(ours.case), note=str(error)) for name in names)
            return first, second
        seconds = [(a.seconds, b.seconds) for a, b in pairs]
        memory = [(a.bytes, b.bytes) for a, b in pairs]
        return _figure(names[0], ratio, ours, seconds), _figure(names[1], ratio, ours, memory, unit="bytes")

    def fastest(self, runs: Sequence[Run]) -> Run:
        """Return the fastest of these that can run here, by the better of two epochs; the first if none can."""
        seconds = {}
        for index, run in enumerate(runs):
            try:
                with Worker(run) as worker:
                    worker.first_epoch()
                    seconds[index] = min(worker.epoch(), worker.epoch())
                logger.info("%s: %.3f s an epoch", run, seconds[index])
            except Unavailable as error:
                logger.info("%s: %s", run, error)
        return runs[min(seconds, key=seconds.__getitem__, default=0)]

    def _pairs_of_epochs(self, ours: Run, theirs: Run) -> list[tuple[float, float]]:
        a, b = self._warm(ours), self._warm(theirs)
        pairs = []
        for index in range(self._pairs):
            if index % 2:
                second, first = b.epoch(), a.epoch()
            else:
                first, second = a.epoch(), b.epoch()
            pairs.append((first, second))
        return pairs

    def _warm(self, run: Run) -> Worker:
        # The words for two runs may be the same.
        if repr(run) not in self._workers:
            worker = self._stack.enter_context(Worker(run))
            seconds = self.first_epoch_seconds[str(run)] = worker.first_epoch().seconds
            for _ in range(_WARM_UP_EPOCHS):
                worker.epoch()
            self._workers[repr(run)] = worker
            logger.info("%s: first epoch %.1f s", run, seconds)
        return self._workers[repr(run)]

    def _fresh(self, run: Run) -> FirstEpoch:
        with Worker(run) as worker:
            return worker.first_epoch()


def _figure(
    name: str, ratio: Ratio, run: Run, pairs: Sequence[tuple[float, float]], unit: str = "s", note: str = ""
) -> Figure:
    ours, theirs = zip(*pairs, strict=True)
    return Figure(name, str(run.case), ours=ours, theirs=theirs, values=ratio(ours, theirs), unit=unit, note=note)
