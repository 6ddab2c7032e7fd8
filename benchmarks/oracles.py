"""Oracles side by side: searches of equal seconds by one worker on one core, and by two on two.

The searches stay in the folder of the results until all are done: after an interruption the same command goes on, at
the same commit alone.
"""

import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from searching import until

from fmnist.errors import EXIT_INTERRUPTED
from fmnist.files import read_json, write_json
from fmnist.run.folder import RunDir
from fmnist.search import status

from . import machine
from .output import options, publish
from .table import Figure, speedup

logger = logging.getLogger(__name__)

RECIPE = "tuned-mlp"
TRIALS = 10_000  # more than there is time for


class Case(NamedTuple):
    """A search: its folder lies in `folder`."""

    folder: Path
    oracle: str
    workers: int
    seed: int

    @property
    def run(self) -> RunDir:
        """The search's run folder."""
        return RunDir(self.folder / f"{self.oracle}-{self.workers}-{self.seed}")

    @property
    def sample(self) -> Path:
        """The file of what the search did, once it has ended."""
        return self.run.path.with_suffix(".json")

    def command(self, job: str) -> list[str]:
        """The command line of a job of this search."""
        of = ["--recipe", RECIPE, "--set", f"search.oracle={self.oracle}", "--set", f"search.trials={TRIALS}"]
        where = ["--seed", str(self.seed), "--run", str(self.run.path), "--devices", "cpu", "--quiet"]
        return [sys.executable, "-m", "fmnist", job, *of, *where]


class Sample(NamedTuple):
    """What a search did: trials and epochs a minute, the best validation accuracy (%)."""

    trials: float
    epochs: float
    best: float


def search(case: Case, seconds: float) -> Sample:
    """Search for `seconds` from the first trial's start on, on as many processors as workers; or read what it did."""
    if case.sample.exists():
        return Sample(**read_json(case.sample))
    # Of a search that was interrupted, nobody knows the seconds.
    shutil.rmtree(case.run.path, ignore_errors=True)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: case.workers]))
    run = case.run
    tune = ["taskset", "--cpu-list", cores, *case.command("tune"), "--workers", str(case.workers)]
    with subprocess.Popen(tune, stderr=subprocess.DEVNULL) as job:
        until(run.trials.exists, 300)
        time.sleep(seconds)
        found = status.read(run)
        job.send_signal(signal.SIGTERM)
    assert job.returncode == EXIT_INTERRUPTED, job.returncode
    assert found.best
    assert found.best.score
    sample = Sample(
        trials=60 * found.count("completed") / seconds,
        epochs=60 * sum(trial.epochs for trial in found.trials) / seconds,
        best=100 * found.best.score,
    )
    write_json(case.sample, sample._asdict())
    return sample


def final(case: Case) -> float:
    """Train the search's best configuration, on all processors; return its validation accuracy (%)."""
    if not case.run.trained:
        subprocess.run(case.command("train"), check=True, stdout=subprocess.DEVNULL)
    history = read_json(case.run.history)
    return 100 * history["history"]["val_accuracy"][history["best_epoch"]]


def main() -> None:
    parser = options("oracles", __doc__)
    known, usual = ("hyperband", "asha", "random", "bayesian"), ("hyperband", "asha")
    parser.add_argument("--oracles", nargs="+", choices=known, default=usual, help="[%(default)s]")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each oracle [%(default)s]")
    parser.add_argument("--seconds", type=float, default=60.0, help="that a search takes [%(default)s]")
    parser.add_argument("--train", action="store_true", help="train the best configuration of each search, too")
    arguments = parser.parse_args()
    here = machine.describe()
    samples: dict[tuple[str, int], list[Sample]] = {}
    finals: dict[tuple[str, int], list[float]] = {}
    folder = arguments.out / f"oracles-{arguments.seconds:g}s-{here['revision']}"
    # The searches of a seed stand side by side, as the machine's speed changes.
    order = itertools.product(range(arguments.seeds), arguments.oracles, (2, 1))
    cases = [Case(folder, oracle, workers, seed) for seed, oracle, workers in order]
    for case in cases:
        samples.setdefault((case.oracle, case.workers), []).append(search(case, arguments.seconds))
        logger.info("%s: %s", case.run.path.name, samples[case.oracle, case.workers][-1])
    # Nothing here depends on time.
    for case in cases if arguments.train else ():
        finals.setdefault((case.oracle, case.workers), []).append(final(case))
        logger.info("%s: %.2f%%", case.run.path.name, finals[case.oracle, case.workers][-1])

    def of(field: str, oracle: str, workers: int) -> tuple[float, ...]:
        return tuple(getattr(sample, field) for sample in samples[oracle, workers])

    figures = []
    for oracle in arguments.oracles:
        setting = f"{RECIPE}, {oracle}, {arguments.seconds:g} s"
        for field, goal in (("trials", ">= 1.85"), ("epochs", "")):
            name = f"{field} a minute, 2 workers on 2 cores over 1 on 1"
            gain = speedup(of(field, oracle, 1), of(field, oracle, 2))
            figures.append(Figure(name, setting, goal, values=gain))
        for workers in (2, 1):
            its = f"{setting}, workers: {workers}"
            for field in ("trials", "epochs"):
                figures.append(Figure(f"{field} a minute", its, values=of(field, oracle, workers)))
            figures.append(_accuracy("best validation accuracy of the search, %", its, of("best", oracle, workers)))
            if arguments.train:
                name = "validation accuracy of the final training, %"
                figures.append(_accuracy(name, its, finals[oracle, workers]))
    if {"asha", "hyperband"} <= set(arguments.oracles):
        for workers in (2, 1):
            pairs = zip(of("best", "asha", workers), of("best", "hyperband", workers), strict=True)
            more, its = [a - b for a, b in pairs], f"{RECIPE}, {arguments.seconds:g} s, workers: {workers}"
            figures.append(_accuracy("best validation accuracy, asha's less hyperband's, points", its, more, ">= 0"))
    publish("oracles", here, figures, arguments.out)
    # Another call measures anew.
    shutil.rmtree(folder)


def _accuracy(name: str, case: str, values: Sequence[float], goal: str = "") -> Figure:
    return Figure(name, case, goal, values=tuple(values), note=f"{case}: mean {mean(values):.2f}")
