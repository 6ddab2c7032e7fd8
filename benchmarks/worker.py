"""Alternatives in processes of their own, which wait at a pipe and work in turn."""

import gc
import multiprocessing
import os
import pkgutil
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from .cases import Alternative, Run

# One sample repeats the epoch for this long: a GPU's epoch is shorter than the jitter of the machine.
_SAMPLE_SECONDS = 0.5
_EXIT_SECONDS = 20


class Unavailable(RuntimeError):
    """The alternative cannot run here, and why."""


class FirstEpoch(NamedTuple):
    """Construction, tracing and compilation, one epoch and its validation; `bytes` is the process's peak memory."""

    seconds: float
    bytes: int


class Worker:
    """A fresh process with the data loaded, in which `run` is to be made and run.

    Its methods return when the other process has answered, so while one worker works all others are idle.
    They raise Unavailable if the alternative failed.
    """

    def __init__(self, run: Run) -> None:
        # A forked process could use neither TensorFlow nor a GPU that this one had touched.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, run), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(_EXIT_SECONDS)
        self._process.kill()
        self._process.join()

    def first_epoch(self) -> FirstEpoch:
        """Make the alternative and run its first epoch."""
        return FirstEpoch(*self._ask("first_epoch"))

    def epoch(self) -> float:
        """Seconds of an epoch of training, without validation."""
        return float(self._ask("epoch"))

    def _ask(self, request: str) -> Any:
        try:
            self._pipe.send(request)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_EXIT_SECONDS)
            raise Unavailable(f"its process ended with exit code {self._process.exitcode}") from error
        if isinstance(answer, Unavailable):
            raise answer
        return answer


def _serve(pipe: Connection, run: Run) -> None:
    try:
        # Imports and the reading of files are the same for all, and no part of a first epoch.
        from fmnist.data import dataset
        from fmnist.recipe.schema import DataConfig

        images = dataset.load_train(None, DataConfig(train_limit=run.case.train_limit))
        make = pkgutil.resolve_name(f"{__package__}.{run.alternative}")
        subject = _Subject(lambda: make(images, run.case, **run.options))
        while True:
            pipe.send(getattr(subject, pipe.recv())())
    except EOFError:
        return
    except Unavailable as error:
        pipe.send(error)
    except ModuleNotFoundError as error:
        pipe.send(Unavailable(f"not installed: pip install {error.name}"))
    except Exception as error:
        pipe.send(Unavailable(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))


class _Subject:
    """The other end of a Worker."""

    def __init__(self, make: Callable[[], Alternative]) -> None:
        self._make = make

    def first_epoch(self) -> FirstEpoch:
        begin = time.perf_counter()
        self._alternative = self._make()
        self._alternative.train()
        self._alternative.validate()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return FirstEpoch(seconds, peak if sys.platform == "darwin" else 1024 * peak)

    def epoch(self) -> float:
        # Nobody's sample should pay for another's garbage.
        gc.collect()
        epochs = 0
        begin = time.perf_counter()
        while epochs == 0 or time.perf_counter() - begin < _SAMPLE_SECONDS:
            self._alternative.train()
            epochs += 1
        return (time.perf_counter() - begin) / epochs


def cores() -> int:
    """Count the processors that this process may use, as TensorFlow does."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
