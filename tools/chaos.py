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

from searching import Search, diary, log, recipe, table

TRIALS, EPOCHS, WORKERS = 40, 3, 3
EPOCH_SECONDS = 0.08
LEASE = 2.0
BOUND = 60.0
"""Seconds in which a search ends after the last kill."""


def disturbed_search(folder: Path, seed: int, kills: int, oracle: str = "random") -> int:
    """Run one search through `kills` kills, fewer if it ends before; check all that it left. Returns the kills."""
    search = Search(folder, recipe(oracle, trials=TRIALS, epochs=EPOCHS))
    chance = random.Random(seed)

    def start(name: str) -> BaseProcess:
        if name == "chief":
            return search.chief(wait=False, lease=LEASE)
        return search.worker(name, seconds=EPOCH_SECONDS)

    running = {name: start(name) for name in ["chief", *(f"worker-{n}" for n in range(WORKERS))]}
    try:
        for done in range(kills):
            # Sometimes one after the other, sometimes together.
            time.sleep(chance.choice((0.0, 0.05, 0.5)) * chance.random())
            victim = chance.choice(sorted(running))
            if not running["chief"].is_alive() and running["chief"].exitcode == 0:
                kills = done
                break
            search.kill(running[victim])
            running[victim] = start(victim)
        search.ends(seconds=BOUND)
        if oracle == "asha":
            check_promotions(search.path, search.path.with_name("whole"))
        else:
            search.is_whole()
    finally:
        for one in search.running:
            one.kill()
            one.join()
    trained = [(trial, epoch) for trial, epoch, _ in diary(search.path)]
    # A kill costs at most the epoch in hand of each worker.
    assert len(trained) - len(set(trained)) <= kills * WORKERS, log(search.path)
    return kills


def check_promotions(path: Path, whole: Path) -> None:
    """Check what does not depend on who asked when: the configurations, and that each trial is promoted once."""
    found = table(path)
    assert [row["status"] for row in found] == ["COMPLETED"] * TRIALS, log(path)
    parents = [row["tuner/trial_id"] for row in found if row["tuner/trial_id"]]
    assert len(parents) == len(set(parents)) > 0, log(path)
    new, undisturbed = (
        [[value for name, value in row.items() if "." in name] for row in rows if not row["tuner/trial_id"]]
        for rows in (found, table(whole))
    )
    both = min(len(new), len(undisturbed))
    assert new[:both] == undisturbed[:both], log(path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=20)
    chosen = options.parse_args()
    for number in range(chosen.rounds):
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            oracle = ("random", "asha")[number % 2]
            kills = disturbed_search(Path(folder), chosen.seed * 1000 + number, kills=20, oracle=oracle)
        print(
            f"round {number + 1} of {chosen.rounds} ({oracle}): {kills} kills, {time.monotonic() - begin:.1f} s, "
            "nothing lost"
        )


if __name__ == "__main__":
    main()
