"""What `predict` makes of pictures from elsewhere: each kind of `drawing` at three strengths, from the test images."""

import logging
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.evaluation import averaging, predict
from fmnist.files import write_json
from fmnist.recipe.schema import IMAGE_SHAPE
from fmnist.run.folder import RunDir

from . import drawing, machine
from .output import options
from .worker import cores

logger = logging.getLogger(__name__)

RECIPES = ("smoke", "quick-mlp")
# The goal: so many points below the originals at most, or a warning of so many of the wrong answers.
MOST_LOST, LEAST_WARNED = 3.0, 0.9
# Preparation is developed on pictures from validation images, and the seed of the test images' is another.
_SEED = {"validation": 0, "test": 1}


def pictures(kind: str, strength: int, images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What `predict` reads of files: uint8 [n, 28, 28], black where it refuses one, and the contrast of each, [n]."""
    read, contrasts = np.zeros((len(images), *IMAGE_SHAPE), np.uint8), np.zeros(len(images))
    random = np.random.default_rng([seed, strength, list(drawing.KINDS).index(kind)])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        for index, image in enumerate(images):
            file.write_bytes(drawing.draw(kind, strength, image, random))
            try:
                found = predict._read(file)
            except BadInput:
                continue
            read[index], contrasts[index] = found.images[0], found.contrast
    return read, contrasts


def judge(run: RunDir, images: np.ndarray, contrasts: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from fmnist.network.inference import load

    known = predict._novelty(run)
    assert known
    right = averaging.probabilities([load(run.model)], images).argmax(axis=1) == labels
    pairs = zip(known.distance(images), contrasts, strict=True)
    warned = np.array([predict._warning(distance, contrast) is not None for distance, contrast in pairs])
    return {
        "accuracy": float(right.mean()),
        "warned_of_wrong": float(warned[~right].mean()),
        "warned_of_right": float(warned[right].mean()),
    }


def main() -> None:
    parser = options("pictures", __doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="run folders; without any, smoke and quick-mlp are trained")
    parser.add_argument("--images", type=int, default=300, help="of each kind and strength [%(default)s]")
    parser.add_argument("--split", choices=list(_SEED), default="test", help="what is drawn [%(default)s]")
    arguments = parser.parse_args()
    here = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        runs = [RunDir(path) for path in arguments.runs] or [_trained(recipe, Path(folder)) for recipe in RECIPES]
        rows = _rows(runs, arguments.split, arguments.images)
    print(table(rows))
    path = arguments.out / f"bench-pictures-{here['kind']}.json"
    write_json(path, {"machine": here, "images": arguments.images, "split": arguments.split, "rows": rows})
    logger.info("%s", path)


def _trained(recipe: str, folder: Path) -> RunDir:
    for job in ("tune", "train") if recipe == "smoke" else ("train",):
        command = [sys.executable, "-m", "fmnist", job, "--quiet", "--recipe", recipe, "--run", str(folder / recipe)]
        subprocess.run(command, check=True)
    return RunDir(folder / recipe)


def _rows(runs: Sequence[RunDir], split: str, count: int) -> list[dict[str, Any]]:
    """The figures of each kind, strength and run; kind "originals" is of the images themselves."""
    # The validation images of the first run stand for all: no picture is drawn from an image that another trained on.
    held = (
        dataset.load_test()[0]
        if split == "test"
        else dataset.split(dataset.load_images()[0], runs[0].recipe()[0].data)[1]
    )
    chosen = held.take(np.random.default_rng(_SEED[split]).permutation(len(held))[:count])
    kinds = [(kind, strength) for kind in drawing.KINDS for strength in drawing.STRENGTHS]
    drawn = {("originals", 0): (chosen.images, np.full(len(chosen), np.inf))}
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as executor:
        jobs = {each: executor.submit(pictures, *each, chosen.images, _SEED[split]) for each in kinds}
        for each, job in jobs.items():
            drawn[each] = job.result()
            logger.info("%s, strength %d", *each)
    rows = []
    for run in runs:
        original = judge(run, *drawn["originals", 0], chosen.labels)["accuracy"]
        for (kind, strength), (images, contrasts) in drawn.items():
            figures = judge(run, images, contrasts, chosen.labels)
            # Without the last digits, by which 3.0 points would be more than 3.
            lost = round(100 * (original - figures["accuracy"]), 6)
            met = lost <= MOST_LOST or figures["warned_of_wrong"] >= LEAST_WARNED
            name = run.recipe()[0].name
            rows.append(
                {"recipe": name, "kind": kind, "strength": strength, **figures, "points_lost": lost, "met": met}
            )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line of Markdown for each kind and strength, with the columns of each recipe."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    head = ["picture", "strength"]
    head += [f"{recipe}: {name}" for recipe in recipes for name in ("accuracy", "warned of wrong", "of right")]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for kind, strength in dict.fromkeys((row["kind"], row["strength"]) for row in rows):
        cells = [kind, str(strength or "")]
        for row in rows:
            if (row["kind"], row["strength"]) == (kind, strength):
                missed = "" if row["met"] else " (missed)"
                cells += [f"{row['accuracy']:.3f}{missed}"]
                cells += [f"{row[name]:.0%}" for name in ("warned_of_wrong", "warned_of_right")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
