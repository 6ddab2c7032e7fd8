"""A finished run made by hand, and a page taken apart, for the tests of the report."""

import csv
import hashlib
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import files
from fmnist.data import dataset
from fmnist.evaluation import metrics as figures
from fmnist.network import pictures
from fmnist.recipe import config
from fmnist.run.folder import RunDir

VOID = {"meta", "link", "br", "input", "img"}
SEARCH = {
    "space": {
        "model.hidden": {"layers": (1, 2), "units": (64, 128)},
        "training.learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"},
    }
}
REFERENCE = {"validation_accuracy": 0.901, "test_accuracy": 0.5, "macro_precision": 0.8736, "macro_recall": 0.8742}
SHA256 = dict.fromkeys(dataset.SHA256, "ab" * 32)
# Trial 02 failed; 01 is the best; 03 has not ended.
TRIALS = [
    ["00", "COMPLETED", 0.85, 10, 12.5, "tuner0", "", "[64]", 0.0012345678],
    ["01", "COMPLETED", 0.9025, 10, 13.5, "tuner0", "", "[128, 64]", 0.003],
    ["02", "FAILED", "", 1, 1.5, "tuner0", "Traceback:\n  here\nthe loss is <i>NaN</i>\n", "[64, 64]", 0.01],
    ["03", "RUNNING", "", 0, 0, "tuner1", "", "[128]", 0.002],
    ["04", "COMPLETED", 0.88, 10, 13.5, "tuner1", "", "[64]", 0.0005],
]


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps the text, the tags and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def rows(self, *cells: str) -> bool:
        return "\n".join(cells) in self.text


def make_run(
    path: Path, *, search: bool = True, fashion: bool = True, seed: int = 7, margin: float = 2, **recipe: Any
) -> RunDir:
    """A run whose figures come of random logits: the larger `margin`, the better."""
    settings = {"name": "tuned-mlp", "description": "A search.", "reference": REFERENCE, **recipe}
    run = RunDir(path)
    claimed = config.resolve(settings | ({"search": SEARCH} if search else {}), "test")
    run.claim(claimed, seed=seed)
    values = {"model.hidden": [128, 64], "training.learning_rate": 0.003}
    trained = config.to_dict(config.replace(claimed, values) if search else claimed)
    run.record("train", devices="1 CPU (made by hand), float32", data=SHA256)
    validates = claimed.data.split != "none"
    validation = {"val_loss": [0.8, 0.55, 0.6], "val_accuracy": [0.72, 0.82, 0.81]}
    files.write_json(
        run.history,
        {
            "history": {
                "loss": [0.9, 0.6, 0.5],
                "accuracy": [0.7, 0.8, 0.85],
                **(validation if validates else {}),
                "learning_rate": [1e-3, 1e-3, 3e-4],
            },
            "settings": {section: trained[section] for section in ("data", "model", "training")},
            "best_epoch": 1,
            "seconds": 31.2,
            "images_per_second": 21_000.0,
        },
    )
    random = np.random.default_rng(seed)
    y_true = np.repeat(np.arange(10), 100)
    logits = random.normal(size=(1000, 10)) + margin * np.eye(10)[y_true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mistakes = pictures.confident_mistakes(y_true, probabilities, 24)
    np.savez(
        run.predictions,
        labels=y_true.astype(np.uint8),
        predicted=logits.argmax(axis=1).astype(np.uint8),
        confidence=probabilities.max(axis=1),
        mistakes=mistakes,
        mistake_images=random.integers(0, 256, (len(mistakes), 28, 28), np.uint8),
    )
    source = dataset.Source(path, SHA256, fashion)
    names = dataset.classes(source)
    files.write_json(
        run.metrics,
        {
            "recipe": "tuned-mlp",
            "seed": seed,
            "model": {"sha256": hashlib.sha256(os.fsencode(path)).hexdigest(), "parameters": 109_386},
            "data": {"is_fashion_mnist": fashion, "sha256": SHA256, "classes": names},
            "train": {"images": 54_000, "accuracy": 0.9512, "loss": 0.14},
            **({"validation": {"images": 6000, "accuracy": 0.9034, "loss": 0.28}} if validates else {}),
            "test": figures.figures(y_true, probabilities, names),
            "seconds": 2.5,
            "images_per_second": 28_000.0,
        },
    )
    if search:
        best = {"trial": "01", "objective": "val_accuracy", "score": 0.9025, "epoch": 7, "values": values}
        files.write_json(run.best, best)
        with run.trials.open("w", newline="") as file:
            columns = ["trial", "status", "score", "epochs", "seconds", "worker", "message"]
            csv.writer(file).writerows([[*columns, "model.hidden", "training.learning_rate"], *TRIALS])
    return run
