"""The speed run: how soon `quick-mlp` has 91% of the validation images right, and how soon stock Keras has."""

import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from fmnist.files import read_json
from fmnist.run.folder import RunDir

from . import machine
from .output import options, publish
from .table import Figure, speedup

logger = logging.getLogger(__name__)

RECIPE = "quick-mlp"
GOAL = 0.91


def validation_accuracy(line: str) -> float:
    """Return what a line of a training's log says of an epoch, ours or stock Keras's; 0 if nothing."""
    said = re.search(r"(?:val_accuracy: |accuracy [\d.]+/)([\d.]+)", line)
    return float(said[1]) if said else 0.0


def seconds_to_goal(command: Sequence[str]) -> tuple[float | None, float]:
    """Of a process from its start: until it says that validation accuracy, None if never, and until its end."""
    begin = time.perf_counter()
    reached = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if reached is None and validation_accuracy(line) >= GOAL:
                reached = time.perf_counter() - begin
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return reached, time.perf_counter() - begin


def main() -> None:
    arguments = options("quick", __doc__, pairs=3).parse_args()
    here = machine.describe()
    ours, stock, whole, test_accuracy = [], [], [], []
    for seed in range(arguments.pairs):
        with tempfile.TemporaryDirectory() as folder:
            fmnist = [sys.executable, "-m", "fmnist"]
            train = [*fmnist, "train", "--recipe", RECIPE, "--seed", str(seed), "--run", folder + "/run"]
            begin = time.perf_counter()
            reached, _ = seconds_to_goal(train)
            subprocess.run([*fmnist, "eval", folder + "/run"], check=True)
            whole.append(time.perf_counter() - begin)
            test_accuracy.append(read_json(RunDir(folder + "/run").metrics)["test"]["accuracy"])
        stock_reached, stock_end = seconds_to_goal([sys.executable, "-m", "benchmarks.stock_recipe", RECIPE])
        logger.info("ours %s s, stock %s s (ended after %.0f s)", reached, stock_reached, stock_end)
        if reached is None:
            sys.exit(f"{RECIPE} with seed {seed} never reached {GOAL:.0%}")
        ours.append(reached)
        # What never got there took at least as long as it ran.
        stock.append(stock_reached or stock_end)
    note = (
        f"train and eval took {statistics.median(whole):.0f} s, test accuracy "
        f"{', '.join(f'{value:.4f}' for value in test_accuracy)}"
    )
    name = f"time to {GOAL:.0%} of the validation images, stock Keras over ours"
    figure = Figure(name, RECIPE, "", tuple(ours), tuple(stock), speedup(ours, stock), note=note)
    publish("quick", here, [figure], arguments.out, whole=whole, test_accuracy=test_accuracy)
