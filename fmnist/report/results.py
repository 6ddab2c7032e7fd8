"""Read the files of a finished run: its figures, and the sentences that the table and the page share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import arrays
from fmnist.errors import BadInput, explain
from fmnist.files import read_json
from fmnist.recipe import config
from fmnist.recipe.schema import CLASSES, IMAGE_SHAPE, Monitor, Recipe, ReferenceConfig
from fmnist.run import identity, records
from fmnist.run.folder import RunDir, read_trials
from fmnist.run.records import Averaged, Best, History, Metrics
from fmnist.search.status import next_step
from fmnist.text import shorten


@dataclass(frozen=True)
class Figure:
    """A figure of this run, and the value that the recipe's origin reported."""

    name: str
    value: float
    reference: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Results:
    """The content of a finished run's files; a run without a search has no `best` and no `trials`."""

    run: RunDir
    claimed: Recipe
    """The recipe as it was requested, which is the same for every seed."""
    recipe: Recipe
    """The recipe as it was trained, with the values that the search had chosen."""
    gone: Mapping[str, Any]
    """The requested values of keys that this version no longer has."""
    seed: int
    jobs: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]
    predictions: Mapping[str, np.ndarray]
    """The arrays of predictions.npz, over the test images, as `evaluate` describes them."""
    averaged: Mapping[str, Any] | None
    """The content of metrics-tta.json, if it is of the same model."""
    training: Mapping[str, Any]
    best: Mapping[str, Any] | None
    trials: Sequence[Mapping[str, str]]

    @property
    def title(self) -> str:
        """The name of the run: its recipe and seed."""
        return f"{self.recipe.name}, seed {self.seed}"

    @property
    def is_fashion_mnist(self) -> bool:
        """Whether the data set is Fashion-MNIST, so that the reference figures apply."""
        return bool(self.metrics["data"]["is_fashion_mnist"])

    @property
    def objective(self) -> Monitor:
        """The metric that a trial's score is a value of."""
        return self.recipe.search.objective if self.recipe.search else "val_accuracy"

    @property
    def scores(self) -> list[float | None]:
        """The score of each trial; None for a trial that failed or has not ended."""
        scores = [float(trial["score"] or "nan") for trial in self.trials]
        return [score if math.isfinite(score) else None for score in scores]

    @property
    def figures(self) -> list[Figure]:
        """The run's main figures, the test accuracy first; validation accuracy only if there are validation images."""
        test, validation, reference = self.metrics["test"], self.metrics.get("validation"), self.recipe.reference
        if reference is None or not self.is_fashion_mnist:
            reference = ReferenceConfig()
        held_back = (
            [Figure("validation accuracy", validation["accuracy"], reference.validation_accuracy)] if validation else []
        )
        return [
            Figure("test accuracy", test["accuracy"], reference.test_accuracy, tuple(test["accuracy_interval"])),
            *held_back,
            Figure("training accuracy", self.metrics["train"]["accuracy"], reference.train_accuracy),
            Figure("macro precision", test["macro"]["precision"], reference.macro_precision),
            Figure("macro recall", test["macro"]["recall"], reference.macro_recall),
            Figure("macro F1", test["macro"]["f1"]),
            Figure("expected calibration error", test["expected_calibration_error"]),
            Figure("test loss", test["loss"]),
        ]


def read(run: RunDir) -> Results:
    """Read a finished run.

    Raises:
        BadInput: there is no run, it is not evaluated yet, a file is damaged, or the figures are of another model.
    """
    recipe, seed = run.recipe()
    for path in (run.metrics, run.predictions):
        if not path.exists():
            raise BadInput(f"{path} is missing; {next_step(run)}")
    best = records.read(run.best, Best) if run.best.exists() else None
    metrics = records.read(run.metrics, Metrics)
    training = records.read(run.history, History)
    identity.check_shown(run, training, metrics)
    return Results(
        run=run,
        claimed=recipe,
        # The recipe that was trained; the search may have found a better one since.
        recipe=config.recorded({**config.to_dict(recipe), **training["settings"]}, str(run.history)),
        gone=run.gone,
        seed=seed,
        jobs=run.jobs(),
        metrics=metrics,
        predictions=_read_predictions(run, metrics),
        averaged=_read_averaged(run.averaged_metrics, metrics["model"]),
        training=training,
        best=best,
        trials=read_trials(run.trials),
    )


def verdict(results: Results) -> str:
    """Return one sentence with the run's test accuracy, and its distance from the reference."""
    test = results.figures[0]
    sentence = f"{test.value:.2%} of {results.metrics['test']['images']:,} test images are classified correctly"
    if test.reference is None:
        return f"{sentence}."
    difference = 100 * (test.value - test.reference)
    side = "above" if difference >= 0 else "below"
    return f"{sentence}, {abs(difference):.2f} points {side} the reference of {test.reference:.2%}."


def warning(results: Results) -> str | None:
    """Return what a reader must know before any figure; None if there is nothing."""
    said = []
    if not results.is_fashion_mnist:
        said.append("NOT FASHION-MNIST: these are the figures of another data set, and no reference applies to them.")
    if results.best and config.replace(results.recipe, results.best["values"]) != results.recipe:
        said.append("The search has found better since; `fmnist train` and `fmnist eval` again to judge that.")
    return " ".join(said) or None


def facts(results: Results) -> dict[str, str]:
    """Return a line for each subject of the run, such as its model, its training and its files."""
    model, training = results.recipe.model, results.recipe.training
    run, fit = results.run, results.training
    dropout = ", ".join(f"{rate:g}" for rate in dict.fromkeys(model.dropout_rates)) or "0"
    decays = training.l1_decays(1)
    decay = "/".join(f"{rate:g}" for rate in decays)
    locality = f" of locality {training.l1_locality:g}" if training.l1_locality else ""
    lines = {
        "recipe": results.title,
        "model": f"hidden layers {'-'.join(map(str, model.hidden)) or 'none'}, {model.activation}, dropout {dropout}, "
        f"{'batch normalization, ' if model.batch_normalization else ''}"
        f"{'square roots of the pixels, ' if model.square_root else ''}"
        f"{f'whitening {model.whitening:g}, ' if model.whitening else ''}"
        f"{f'local contrast {model.local_contrast:g}, ' if model.local_contrast else ''}"
        f"{f'receptive fields of {model.receptive_field:g} pixels, ' if model.receptive_field else ''}"
        f"{results.metrics['model']['parameters']:,} parameters",
        "training": f"{training.optimizer}, learning rate {training.learning_rate:.3g}, "
        f"weight decay {training.weight_decay:.3g}, "
        f"{f'L1 decay {decay}{locality}, ' if any(decays) else ''}batch size {training.batch_size}; "
        f"{len(fit['history']['loss'])} epochs in {fit['seconds']:.1f} s "
        f"({fit['images_per_second']:,.0f} images/s in the median epoch), "
        f"weights of epoch {fit['best_epoch'] + 1}",
    }
    if results.gone:
        said = ", ".join(f"{key}={value}" for key, value in results.gone.items())
        lines["also trained with"] = f"{said}, which this version no longer has"
    if results.best:
        scored = sum(score is not None for score in results.scores)
        unscored = len(results.trials) - scored
        lines["search"] = (
            f"{scored} trials{f' and {unscored} without a score' if unscored else ''}, "
            f"best {results.objective} {results.best['score']:.4f} in trial {results.best['trial']}"
        )
    if results.averaged:
        test = results.averaged["test"]
        low, high = test["accuracy_interval"]
        lines["averaged"] = (
            f"test accuracy {test['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}), over "
            f"{results.averaged['views']} views of each image; all other figures are of the image alone"
        )
    lines["device"] = str(results.jobs.get("train", {}).get("devices", "not recorded"))
    lines["files"] = f"{run}: {', '.join(path.name for path in (run.model, run.metrics, run.report))}"
    return lines


def _read_averaged(path: Path, model: records.Model) -> Averaged | None:
    if not path.exists():
        return None
    of_this_model = read_json(path, ("model",))["model"] == model
    return records.read(path, Averaged) if of_this_model else None


def _read_predictions(run: RunDir, metrics: Metrics) -> dict[str, np.ndarray]:
    """Return the arrays of predictions.npz, as `evaluate` describes them; check them against `metrics`.

    Raises:
        BadInput: the file cannot be read, is damaged, or is of another model.
    """
    path = run.predictions
    try:
        found = arrays.load(path)
        images, known = found["labels"].shape[:1], found["confidence"].shape[:1]
        shown = found["mistakes"].shape[:1]
        for name, kinds, shape in (
            ("labels", "u", images),
            ("predicted", "u", images),
            ("confidence", "f", known),
            ("mistakes", "iu", shown),
            ("mistake_images", "u", (*shown, *IMAGE_SHAPE)),
        ):
            if found[name].shape != shape or found[name].dtype.kind not in kinds:
                raise ValueError(f"{name} is {found[name].dtype} {list(found[name].shape)}, not {list(shape)}")
        for name, most in (("labels", CLASSES), ("predicted", CLASSES), ("mistakes", *known)):
            if not ((found[name] >= 0) & (found[name] < most)).all():
                raise ValueError(f"{name} is out of range")
    except OSError as error:
        raise BadInput(explain(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({shorten(str(error))}); remove it and run `fmnist eval` again") from error
    # Older versions did not record the model.
    if "model" in found and str(found["model"]) != metrics["model"]["sha256"]:
        raise BadInput(
            f"{path} is not of the model that {run.metrics.name} judges; remove it and run `fmnist eval` again"
        )
    return found
