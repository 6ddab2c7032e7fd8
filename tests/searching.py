"""What the search's tests share: a small recipe, and trials whose score is a formula instead of a training."""

import csv
import ctypes
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
from forked import CONTEXT

from fmnist.errors import EXIT_BAD_INPUT, BadInput
from fmnist.files import atomic_write, read_json
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import chief as chief_module
from fmnist.search import client, service
from fmnist.search.chief import Chief
from fmnist.search.roles import Role, read_notice
from fmnist.search.worker import Report, TrialRequest, work
from fmnist.signals import Stop, stop_on_signals

SPACE = {
    "model.hidden": {"layers": [1, 3], "units": [16, 32, 64]},
    "training.learning_rate": {"min": 1e-4, "max": 1e-1, "sampling": "log"},
    "training.optimizer": {"values": ["sgd", "adam"]},
}
SMALL_SPACE = {key: SPACE[key] for key in ("training.learning_rate", "training.optimizer")}
"""Two dimensions: after six random trials the Bayesian oracle makes its own."""


def recipe(oracle: str = "random", space: dict[str, Any] = SPACE, **search: Any) -> Recipe:
    settings = {"space": space, "oracle": oracle, "trials": 5, "epochs": 2, **search}
    return config.resolve({"name": "test", "description": "for tests", "search": settings}, "test")


class Runner:
    """A `RunTrial` whose best epoch is its last but one; remembers what it was asked for."""

    def __init__(self) -> None:
        self.requests: list[TrialRequest] = []

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        self.requests.append(trial)
        for epoch in range(trial.initial_epoch, trial.epochs):
            report(epoch, self.metrics(trial, epoch))

    def metrics(self, trial: TrialRequest, epoch: int) -> dict[str, float]:
        width = sum(trial.values.get("model.hidden", [0]))
        rate = trial.values.get("training.learning_rate", 0.0)
        accuracy = 0.5 + width / 1000 - rate - abs(epoch - (trial.epochs - 2)) / 100
        return {"val_accuracy": accuracy, "val_loss": 1 - accuracy}


def search(path: Path, of: Recipe, runner: Runner, seed: int = 0, worker: str = "tuner0") -> Chief:
    chief = Chief(RunDir(path), of, seed)
    work(chief, worker, runner, Stop())
    return chief


def table(path: Path) -> list[dict[str, str]]:
    """trials.csv, without what differs from run to run."""
    with RunDir(path).trials.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "worker")} for row in csv.DictReader(file)]


class Paced(Runner):
    """A `Runner` with a clock, a checkpoint and a diary: it goes on after its last epoch, and says what it trained.

    It keeps them beside the run folder: what the run folder holds is the chief's.
    """

    def __init__(self, path: Path, worker: str, seconds: float, fail: str = "") -> None:
        super().__init__()
        self.path, self.worker, self.seconds, self.fail = path, worker, seconds, fail
        _beside(path, "checkpoint").mkdir(parents=True, exist_ok=True)

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        reason, _, until = self.fail.partition(":")
        if reason == "hang" and int(trial.trial_id) < int(until):
            report(0, self.metrics(trial, 0))
            self.note(f"{trial.trial_id} 0 {self.worker}")
            threading.Event().wait()
        if reason and int(trial.trial_id) < int(until):
            raise {"memory": MemoryError(), "error": RuntimeError("no luck")}.get(reason, ArithmeticError("NaN"))
        checkpoint = _beside(self.path, "checkpoint") / trial.trial_id
        done = int(checkpoint.read_text()) if checkpoint.exists() else trial.initial_epoch
        for epoch in range(trial.initial_epoch, trial.epochs):
            if epoch >= done:
                time.sleep(self.seconds)
                self.note(f"{trial.trial_id} {epoch} {self.worker}")
            report(epoch, self.metrics(trial, epoch))
            if epoch >= done:
                with atomic_write(checkpoint) as file:
                    file.write(str(epoch + 1).encode())

    def note(self, line: str) -> None:
        with _beside(self.path, "diary").open("a") as file:
            file.write(line + "\n")


def process(target: Callable[..., object], *args: Any, **kwargs: Any) -> BaseProcess:
    """A real process, started; it shares its imports with the others, not its memory."""
    started = CONTEXT.Process(target=_main, args=(target, args, kwargs))
    started.start()
    return started


def _main(target: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A job's process: as cli.main, with a log of its own."""
    path = args[0]
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s", filename=_beside(path, "log"))
    try:
        target(*args, **kwargs)
    except BadInput as error:
        logging.error("refused: %s", error)
        sys.exit(EXIT_BAD_INPUT)
    except BaseException:
        logging.exception("ended by")
        raise


CHIEF = Role("chief")


def chief(path: Path, of: Recipe, role: Role = CHIEF, lease: float = 60.0) -> None:
    stop = stop_on_signals()
    path.mkdir(exist_ok=True)
    # A short lease would run out while a busy disk writes.
    chief_module._HANG = min(chief_module._HANG, lease / 10)
    service.serve(RunDir(path), of, 0, role, stop, lease)


def worker(
    path: Path,
    of: Recipe,
    role: Role,
    seconds: float = 0.02,
    fail: str = "",
    patience: float = 60.0,
    network: str | None = None,
    usual: float = client._USUAL_SECONDS,
) -> None:
    """Args: network: the namespace to be in; usual: seconds for which it waits without a word."""
    client._USUAL_SECONDS = usual
    if network:
        with open(f"/var/run/netns/{network}") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0
    stop = stop_on_signals()
    runner = Paced(path, role.id, seconds, fail)

    def run(trial: TrialRequest, report: Report) -> None:
        def then_stop(epoch: int, metrics: Mapping[str, float]) -> None:
            report(epoch, metrics)
            # As the real training: a stop ends a trial at the end of an epoch.
            stop.check()

        runner(trial, then_stop)

    client.join(RunDir(path), of, role, run, stop, patience)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}")


def log(path: Path) -> str:
    """What the processes of the search in `path` have logged."""
    return _beside(path, "log").read_text() if _beside(path, "log").exists() else ""


def diary(path: Path) -> list[tuple[str, int, str]]:
    """Each epoch that was trained: trial, epoch, worker."""
    lines = _beside(path, "diary").read_text().splitlines() if _beside(path, "diary").exists() else []
    return [(trial, int(epoch), name) for trial, epoch, name in map(str.split, lines)]


def until(condition: Callable[[], object], seconds: float = 30.0, pause: float = 0.005) -> None:
    """Wait for a condition, and ask for it at such intervals."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


class Search:
    """A search by processes, and the same search undisturbed, in this process."""

    def __init__(self, path: Path, of: Recipe) -> None:
        self.path = path / "run"
        self.of = of
        self.running: list[BaseProcess] = []
        self.addresses: set[str] = set()
        search(path / "whole", of, Runner())

    def chief(self, wait: bool = True, **kwargs: Any) -> BaseProcess:
        # What an earlier chief wrote must not be taken for the word of this one.
        RunDir(self.path).chief.unlink(missing_ok=True)
        started = self._start(chief, **kwargs)
        if wait:
            until(self.address)
            self.addresses.add(self.address())
        return started

    def worker(self, name: str = "worker-0", role: Role | None = None, **kwargs: Any) -> BaseProcess:
        return self._start(worker, role=role or Role(name), **kwargs)

    def workers(self, **kwargs: Any) -> list[BaseProcess]:
        return [self.worker(f"worker-{number}", **kwargs) for number in range(2)]

    def ends_alone(self, process: BaseProcess, code: int) -> None:
        """Check that this process ends by itself, whatever the others do."""
        process.join(20)
        assert process.exitcode == code, log(self.path)
        self.running.remove(process)

    def _start(self, target: Callable[..., object], **kwargs: Any) -> BaseProcess:
        self.running.append(process(target, self.path, self.of, **kwargs))
        return self.running[-1]

    def connect(self) -> socket.socket:
        host, _, port = self.address().rpartition(":")
        return socket.create_connection((host, int(port)), timeout=10)

    def call(self) -> grpc.Channel:
        """A connection to the chief, whatever proxy the site has."""
        return grpc.insecure_channel(self.address(), (("grpc.enable_http_proxy", 0),))

    def address(self) -> str:
        notice = read_notice(RunDir(self.path))
        return notice.address or "" if notice else ""

    def epochs(self, worker: str) -> list[tuple[str, int]]:
        return [(trial, epoch) for trial, epoch, name in diary(self.path) if name == worker]

    def kill(self, *processes: BaseProcess) -> None:
        for one in processes:
            one.kill()
            one.join()
            self.running.remove(one)

    def ends(self, exits: int = 0, seconds: float = 40) -> None:
        """All processes end by themselves, in bounded time."""
        for one in self.running:
            one.join(seconds)
            assert one.exitcode == exits, log(self.path)
        self.running.clear()

    def is_whole(self) -> None:
        """Every trial counted exactly once, the best is the best, nobody listens any more."""
        whole = self.path.with_name("whole")
        assert table(self.path) == table(whole)
        assert read_json(RunDir(self.path).best) == read_json(RunDir(whole).best)
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            with socket.socket() as connection:
                assert connection.connect_ex((host, int(port))) != 0
        assert "Traceback" not in log(self.path).replace("ended by\nTraceback", "")
