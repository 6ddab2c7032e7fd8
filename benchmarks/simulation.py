"""A chief and many simulated workers: threads over real gRPC, whose trials only sleep and report."""

import contextlib
import json
import os
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import searching
from searching import process, recipe, until

from fmnist import files
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import client, project, service
from fmnist.search.roles import Role, read_notice
from fmnist.search.worker import Report, RunTrial, TrialRequest
from fmnist.signals import Stop


@dataclass(frozen=True)
class Outcome:
    """What a simulated search took.

    busy: share of the workers' time up to the end of each one's last trial; then a worker waits for the search's end.
    chief: processors it used.
    end: seconds from the end of the search, as it tells the workers, to its exit.
    calls, files: that the chief answered and wrote, a second; a line of the journal is no file.
    memory, before: its most, and what it had before a worker came, in bytes.
    handles, threads: the most open files, and the most threads, that it had at a time.
    volume: bytes that the search left on the disk, by whole blocks.
    """

    busy: float
    chief: float
    end: float
    calls: float
    files: float
    memory: float
    before: float
    handles: int
    threads: int
    volume: int


def simulated(oracle: str, trials: int, epochs: int) -> Recipe:
    """Return the recipe of a search each of whose trials trains `epochs`, a promoted one after those of its parent."""
    if oracle == "asha":
        return recipe(oracle, trials=trials, epochs=2 * epochs, min_epochs=epochs, reduction_factor=2)
    return recipe(oracle, trials=trials, epochs=epochs)


def simulate(folder: Path, of: Recipe, workers: int, epoch_seconds: float, spread: float = 0.0) -> Outcome:
    """Simulate a search of `of` by `workers` in `folder`, which is made.

    Args:
        spread: the epochs of a trial take `epoch_seconds` times a number of its own in 1 - spread .. 1 + spread.
    """
    folder.mkdir(exist_ok=True)
    run = RunDir(folder / "run")
    chief = process(counted_chief, run.path, of)
    until(lambda: (notice := read_notice(run)) and notice.address)
    assert chief.pid
    slept, present = [0.0] * workers, [0.0] * workers

    def train(number: int, start: float) -> RunTrial:
        def run_trial(trial: TrialRequest, report: Report) -> None:
            chance = random.Random(trial.trial_id)
            seconds = epoch_seconds * (1 + spread * chance.uniform(-1, 1))
            score = chance.random()
            for epoch in range(trial.initial_epoch, trial.epochs):
                time.sleep(seconds)
                slept[number] += seconds
                report(epoch, {"val_accuracy": score, "val_loss": 0.5, "loss": 0.5, "accuracy": 0.5})
            present[number] = time.perf_counter() - start

        return run_trial

    def work(number: int) -> None:
        # Real workers do not report in step.
        time.sleep(epoch_seconds * number / workers)
        client.join(run, of, Role(f"worker-{number}"), train(number, time.perf_counter()), Stop())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    before = _resident(chief.pid)
    used, begin = processor_seconds(chief.pid), time.perf_counter()
    most = Counter[str]()
    for thread in threads:
        thread.start()
    while (notice := read_notice(run)) and notice.address:
        time.sleep(0.1)
        # It may end meanwhile.
        with contextlib.suppress(FileNotFoundError):
            used_last = processor_seconds(chief.pid)
            for kind in ("fd", "task"):
                most[kind] = max(most[kind], len(os.listdir(f"/proc/{chief.pid}/{kind}")))
    end = time.perf_counter()
    chief.join(10)
    ended = time.perf_counter()
    assert chief.exitcode == 0
    for thread in threads:
        thread.join()
    counts = json.loads(_counts(run.path).read_bytes())
    return Outcome(
        busy=sum(slept) / sum(present),
        chief=(used_last - used) / (end - begin),
        end=ended - end,
        calls=counts["calls"] / (end - begin),
        files=counts["files"] / (end - begin),
        memory=counts["memory"],
        before=before,
        handles=most["fd"],
        threads=most["task"],
        volume=sum(512 * path.lstat().st_blocks for path in run.path.rglob("*")),
    )


def counted_chief(path: Path, of: Recipe) -> None:
    """Run a chief that counts, and leaves its counts beside the run folder."""
    counts: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return counted

    # Every call and every file passes through one of these.
    service._answering = counting("calls", service._answering)
    for module in (files, project):
        module.atomic_write = counting("files", module.atomic_write)  # type: ignore[attr-defined]
    searching.chief(path, of)
    counts["memory"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _counts(path).write_text(json.dumps(counts))


def _counts(path: Path) -> Path:
    return path.with_name(f"{path.name}.counts")


def _resident(pid: int) -> int:
    """Return the memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
