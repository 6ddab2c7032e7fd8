"""A chief and many simulated workers: threads over real gRPC, whose trials only sleep and report."""

import json
import os
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

    busy: share of the workers' time.
    chief: processors it used.
    end: seconds from the last trial to its exit.
    calls, files: that the chief answered and wrote, a second.
    memory: its most, in bytes.
    volume: bytes that the search left on the disk, by whole blocks.
    """

    busy: float
    chief: float
    end: float
    calls: float
    files: float
    memory: float
    volume: int


def simulate(folder: Path, workers: int, trials: int, epochs: int, epoch_seconds: float) -> Outcome:
    """Simulate a search of `workers` x `trials` trials of `epochs` x `epoch_seconds` in `folder`, and make that."""
    of = recipe(trials=workers * trials, epochs=epochs)
    folder.mkdir(exist_ok=True)
    run = RunDir(folder / "run")
    chief = process(counted_chief, run.path, of)
    until(lambda: (notice := read_notice(run)) and notice.address)
    assert chief.pid
    slept, present = [0] * workers, [0.0] * workers

    def train(number: int) -> RunTrial:
        def run_trial(trial: TrialRequest, report: Report) -> None:
            for epoch in range(trial.epochs):
                time.sleep(epoch_seconds)
                slept[number] += 1
                report(epoch, {"val_accuracy": 0.5, "val_loss": 0.5, "loss": 0.5, "accuracy": 0.5})

        return run_trial

    def work(number: int) -> None:
        # Real workers do not report in step.
        time.sleep(epoch_seconds * number / workers)
        start = time.perf_counter()
        client.join(run, of, Role(f"worker-{number}"), train(number), Stop())
        present[number] = time.perf_counter() - start

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    used, begin = processor_seconds(chief.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    while (notice := read_notice(run)) and notice.address:
        time.sleep(0.01)
        used_last = processor_seconds(chief.pid)
    end = time.perf_counter()
    chief.join(10)
    assert chief.exitcode == 0
    for thread in threads:
        thread.join()
    counts = json.loads(_counts(run.path).read_bytes())
    return Outcome(
        busy=epoch_seconds * sum(slept) / sum(present),
        chief=(used_last - used) / (end - begin),
        end=time.perf_counter() - end,
        calls=counts["calls"] / (end - begin),
        files=counts["files"] / (end - begin),
        memory=counts["memory"],
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


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
