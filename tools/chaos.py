"""Searches through which chief and workers are killed at random moments: nothing is lost, and all of them end.

    python -m tools.chaos --seed 0 --rounds 20

The same seed gives the same victims and pauses; what they hit is up to the machine.
"""

import argparse
import random
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import searching
from searching import Runner, diary, log, process, recipe, table

from fmnist.files import read_json
from fmnist.run.folder import RunDir
from fmnist.search.roles import Role

TRIALS, EPOCHS, WORKERS = 40, 3, 3
EPOCH_SECONDS = 0.08
LEASE = 2.0
BOUND = 60.0
"""Seconds in which a search ends after the last kill."""


def disturbed_search(folder: Path, seed: int, kills: int) -> int:
    """Run one search through `kills` kills, fewer if it ends before; check all that it left. Returns the kills."""
    of, path, whole = recipe(trials=TRIALS, epochs=EPOCHS), folder / "run", folder / "whole"
    chance = random.Random(seed)
    searching.search(whole, of, Runner())

    def start(name: str) -> BaseProcess:
        if name == "chief":
            return process(searching.chief, path, of, Role(name), LEASE)
        return process(searching.worker, path, of, Role(name), EPOCH_SECONDS)

    running = {name: start(name) for name in ["chief", *(f"worker-{n}" for n in range(WORKERS))]}
    try:
        for done in range(kills):
            # Sometimes one after the other, sometimes together.
            time.sleep(chance.choice((0.0, 0.05, 0.5)) * chance.random())
            victim = chance.choice(sorted(running))
            if not running["chief"].is_alive() and running["chief"].exitcode == 0:
                kills = done
                break
            running[victim].kill()
            running[victim].join()
            running[victim] = start(victim)
        deadline = time.monotonic() + BOUND
        for name, one in running.items():
            one.join(max(0.0, deadline - time.monotonic()))
            assert one.exitcode == 0, f"{name} ended with {one.exitcode}\n{log(path)}"
    finally:
        for one in running.values():
            one.kill()
            one.join()
    assert table(path) == table(whole), log(path)
    assert read_json(RunDir(path).best) == read_json(RunDir(whole).best)
    trained = [(trial, epoch) for trial, epoch, _ in diary(path)]
    # A kill costs at most the epoch in hand of each worker.
    assert len(trained) - len(set(trained)) <= kills * WORKERS, log(path)
    return kills


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=20)
    chosen = options.parse_args()
    for number in range(chosen.rounds):
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            kills = disturbed_search(Path(folder), chosen.seed * 1000 + number, kills=20)
        print(f"round {number + 1} of {chosen.rounds}: {kills} kills, {time.monotonic() - begin:.1f} s, nothing lost")


if __name__ == "__main__":
    main()
