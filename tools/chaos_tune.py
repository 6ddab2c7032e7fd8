"""Real searches through which `tune`, its chief and its workers are killed at random moments, compilation included.

    python -m tools.chaos_tune --seed 0 --rounds 30 --kills 5

Each ends with the table and the best of one that nobody disturbed, whatever was killed when.
"""

import argparse
import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import searching
from forked import Forked

from fmnist.data import dataset
from fmnist.files import read_json
from fmnist.run.folder import RunDir

OF = """
description = "a search to kill"

[data]
train_limit = 2000

[search]
oracle = "{oracle}"
trials = 6
epochs = 4

[search.space]
"model.hidden" = { layers = [1, 2], units = [16, 32] }
"training.learning_rate" = { min = 1e-3, max = 1e-2, sampling = "log" }
"""
BOUND = 180.0
"""Seconds in which a search ends after the last kill."""
ALONE, WORKERS = 1, 2
# What Hyperband gives to which of several workers depends on who asks first, also undisturbed.
ORACLES = {ALONE: "hyperband", WORKERS: "random"}


class Chaos:
    """Searches in one folder, those that nobody disturbs first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **os.environ,
            "FMNIST_DATA": str(dataset.fetch(None).directory),
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        for workers, oracle in ORACLES.items():
            (folder / f"of-{workers}.toml").write_text(OF.replace("{oracle}", oracle))

    def whole(self, workers: int) -> None:
        """Run the search undisturbed."""
        self._end(self._start("whole", workers), f"whole-{workers}")

    def disturbed(self, workers: int, seed: int, kills: int) -> int:
        """Run it through at most `kills` kills, and compare; the number that there were."""
        chance = random.Random(seed)
        name = f"run-{seed}"
        process = self._start(name, workers)
        done = 0
        while done < kills:
            # Processes begin, compile and train within such a time.
            time.sleep(chance.choice((0.5, 2.0, 6.0)) * chance.random())
            if process.ended:
                break
            members = list(_members(process.pid))
            # The launcher takes all with it.
            victim = chance.choice([process.pid, *members])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                done += 1
            if victim == process.pid:
                process.wait()
                process = self._start(name, workers)
        self._end(process, name)
        run, whole = self.folder / name / str(workers), self.folder / "whole" / str(workers)
        assert searching.table(run) == searching.table(whole), self.log(name)
        assert read_json(RunDir(run).best) == read_json(RunDir(whole).best), self.log(name)
        return done

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, workers: int) -> Forked:
        path = self.folder / name / str(workers)
        command = ["tune", "--recipe", f"of-{workers}.toml", "--run", str(path), "--workers", str(workers)]
        with (self.folder / f"{name}.log").open("ab") as log:
            return Forked(command, self.folder, self._environment, stderr=log.fileno())

    def _end(self, process: Forked, name: str) -> None:
        process.communicate(timeout=BOUND)
        assert process.returncode == 0, self.log(name)


def _members(launcher: int) -> Iterator[int]:
    """Yield the process ids of the launcher's chief and workers."""
    for pid in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        # It may end meanwhile.
        with contextlib.suppress(OSError):
            if b"KERASTUNER_TUNER_ID=" in Path(f"/proc/{pid}/environ").read_bytes():
                yield pid


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=4, help="with workers every second one [%(default)s]")
    options.add_argument("--kills", type=int, default=5, help="of a round [%(default)s]")
    chosen = options.parse_args()
    forked.preload_jobs()
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder))
        for workers in (ALONE, WORKERS):
            chaos.whole(workers)
        for number in range(chosen.rounds):
            begin, workers = time.monotonic(), (ALONE, WORKERS)[number % 2]
            kills = chaos.disturbed(workers, chosen.seed * 1000 + number, chosen.kills)
            total += kills
            how = "alone" if workers == ALONE else f"a chief and {workers} workers"
            print(
                f"tune, round {number + 1} of {chosen.rounds} ({how}): {kills} kills, "
                f"{time.monotonic() - begin:.1f} s, the same table and best",
                flush=True,
            )
    print(f"tune: {total} kills in {chosen.rounds} rounds, nothing lost")


if __name__ == "__main__":
    main()
