"""Run `eval`: score a final model, or several together, on the test set, which no room but this one reads."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist import arrays
from fmnist.data import dataset
from fmnist.data.dataset import Images
from fmnist.devices import numerics
from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.files import check_output, is_stream, to_json, utf8_path, write_json, write_output
from fmnist.network import pictures
from fmnist.progress import bar
from fmnist.recipe.schema import Recipe
from fmnist.revision import revision
from fmnist.run import identity, records
from fmnist.run.folder import RunDir, check_distinct
from fmnist.search.status import next_step

# TensorFlow takes seconds to import; finished figures are shown without it.
if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_MISTAKES = 24


def evaluate(run: RunDir, data_dir: Path | None, choose: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Score the run's model on the test set, unless that is done; write metrics.json and predictions.npz.

    For the test images, predictions.npz holds `labels` and `predicted`, uint8 [n], and `confidence`, float32 [n], the
    probability of the predicted class. For the most confident mistakes, the worst first, it holds their indices in
    these arrays, `mistakes`, int64 [k], and `mistake_images`, uint8 [k, 28, 28]. `model` is the SHA-256 of the model's
    file.

    Args:
        run: the folder of a finished training.
        data_dir: the folder of the data set's files; None to find them as `fmnist data` does.
        choose: called before TensorFlow is used, to choose its devices.

    Returns:
        The content of metrics.json.

    Raises:
        BadInput: the run or its model is missing, the model cannot be used, or it was trained on other data.
    """
    member = _member(run)
    images, facts = _read(data_dir)
    if run.predictions.exists() and (known := _known(run.metrics, records.Metrics, member.identity | {"data": facts})):
        return known
    choose()
    made = member.described() | {"data": facts}
    splits = _split(images, member.recipe)
    run.record("eval", devices=devices(), data=facts["sha256"], numerics=numerics())
    probabilities, speed = _ask([member.model], splits, tta=False)
    metrics = made | _judged(splits, probabilities, facts["classes"]) | speed
    # The figures come last: with them the work counts as done.
    _write_images(run, np.asarray(metrics["test"]["confusion_matrix"]), facts["classes"])
    with run.changing():
        identity.check_unchanged(run, member.sha256)
        _write_predictions(member, splits["test"], probabilities["test"])
        write_json(run.metrics, metrics)
    return metrics


def evaluate_averaged(
    run: RunDir, data_dir: Path | None, choose: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Score the run's model with test-time averaging over `averaging.views`, unless that is done.

    The arguments and errors are those of `evaluate`, whose files do not change.

    Returns:
        The content of metrics-tta.json: that of metrics.json without figures of the training images, but with the
        number of `views`.
    """
    member = _member(run)
    _warn_of_views([member])
    images, facts = _read(data_dir)
    seen = {"data": facts, "views": averaging.VIEWS}
    if known := _known(run.averaged_metrics, records.Averaged, member.identity | seen):
        return known
    choose()
    made = member.described() | seen
    splits = _split(images, member.recipe)
    run.record("eval-tta", devices=devices(), data=facts["sha256"], numerics=numerics())
    metrics = made | _held_back_figures([member.model], splits, facts["classes"], tta=True)
    with run.changing():
        identity.check_unchanged(run, member.sha256)
        write_json(run.averaged_metrics, metrics)
    return metrics


def evaluate_ensemble(
    runs: Sequence[RunDir],
    data_dir: Path | None,
    choose: Callable[[], object] = lambda: None,
    *,
    tta: bool = False,
    output: Path | None = None,
) -> dict[str, Any]:
    """Score the mean of the probabilities of the runs' models, unless that is done; the runs do not change.

    Args:
        runs: the folders of two finished trainings or more.
        data_dir, choose: as in `evaluate`.
        tta: whether each model's probabilities are themselves means over `averaging.views`.
        output: the file to write; None for ensemble.json, or ensemble-tta.json, beside the first run's folder.

    Returns:
        The content of the file: that of metrics.json without figures of the training images, but with the `members` in
        place of the model, the total number of their parameters, and the number of `views`.

    Raises:
        BadInput: there are fewer than two runs, one is named twice, `evaluate` would refuse one, they hold back
            different validation images, or the file holds another ensemble.
    """
    if len(runs) < 2:
        raise BadInput("an ensemble needs two runs or more; name another, or leave out --ensemble")
    check_distinct(runs)
    members = [_member(run) for run in runs]
    for member in members[1:]:
        _check_split(members[0], member)
    if tta:
        _warn_of_views(members)
    images, facts = _read(data_dir)
    for run in runs:
        run.check_data(facts["sha256"])
    seen = {"data": facts, "views": averaging.VIEWS if tta else 1}
    named = [{"run": member.run.name, **member.identity} for member in members]
    made_from = {"members": named, **seen}
    path = output or runs[0].parent / ("ensemble-tta.json" if tta else "ensemble.json")
    if known := _known(path, records.Ensemble, made_from):
        return known
    _check_members(path, named)
    check_output(path)
    choose()
    made = {
        "members": [{"run": member.run.name, **member.described()} for member in members],
        "parameters": sum(member.model.count_params() for member in members),
        **seen,
        "revision": revision(),
        "devices": devices(),
    }
    splits = _split(images, members[0].recipe)
    models = [member.model for member in members]
    metrics = made | _held_back_figures(models, splits, facts["classes"], tta=tta)
    write_output(path, to_json(metrics))
    logger.info("the ensemble's figures are in %s", path)
    return metrics


def sentence(metrics: Mapping[str, Any]) -> str:
    """Return a sentence about the test accuracy in metrics that any of the functions above returned."""
    test = metrics["test"]
    low, high = test["accuracy_interval"]
    members = f" of an ensemble of {len(metrics['members'])}" if "members" in metrics else ""
    views = f" with test-time averaging over {metrics['views']} views" if metrics.get("views", 1) > 1 else ""
    return f"test accuracy{members}{views} {test['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f})"


def devices() -> str:
    """Return the names of TensorFlow's devices, for the record."""
    import tensorflow as tf

    return ", ".join(device.name.removeprefix("/device:") for device in tf.config.list_logical_devices())


@dataclass(frozen=True)
class _Member:
    """A finished training; `sha256` is the hash of its model's file."""

    run: RunDir
    recipe: Recipe
    seed: int
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What distinguishes the model from every other."""
        return {"recipe": self.recipe.name, "seed": self.seed, "model": {"sha256": self.sha256}}

    @cached_property
    def model(self) -> "keras.Model":
        from fmnist.network.inference import load

        model = load(self.run.model)
        # The file was opened twice, for its hash and for the model; it may have been replaced in between.
        identity.check_unchanged(self.run, self.sha256)
        return model

    def described(self) -> dict[str, Any]:
        """Return the identity and the number of parameters, which are recorded with the model's figures."""
        return self.identity | {"model": {"sha256": self.sha256, "parameters": self.model.count_params()}}


def _member(run: RunDir) -> _Member:
    recipe, seed = run.recipe()
    if not run.model.exists():
        raise BadInput(f"{run.model} is missing; {next_step(run)}")
    return _Member(run, recipe, seed, identity.of_model(run))


def _warn_of_views(members: Sequence[_Member]) -> None:
    for member in members:
        if not averaging.helps(member.recipe.training):
            logger.warning(
                "%s was trained without flips, or without shifts and deformations; --tta is likely to cost accuracy",
                member.run,
            )


def _read(data_dir: Path | None) -> tuple[tuple[Images, Images], dict[str, Any]]:
    """Read the training images and the test images, and return with them what is recorded about the data."""
    train, trained_on = dataset.load_images(data_dir)
    test, source = dataset.load_test(data_dir)
    facts = {
        "is_fashion_mnist": trained_on.is_fashion_mnist and source.is_fashion_mnist,
        "sha256": {**trained_on.sha256, **source.sha256},
        "classes": list(dataset.classes(source)),
    }
    return (train, test), facts


def _split(images: tuple[Images, Images], recipe: Recipe) -> dict[str, Images]:
    """Return the images by the names of their splits, without empty splits."""
    train, validation = dataset.split(images[0], recipe.data)
    splits = {"train": train, "validation": validation, "test": images[1]}
    return {name: split for name, split in splits.items() if len(split)}


def _known(path: Path, kind: type[Any], made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of the file, if it was made from the same models and data in the same way; else None."""
    if not path.exists() or is_stream(path):
        return None
    known: dict[str, Any] = records.read(path, kind)
    if any(_without_parameters(known.get(key)) != value for key, value in made_from.items()):
        return None
    logger.info("%s is finished; nothing to do", path)
    return known


def _without_parameters(value: Any) -> Any:
    """Remove the numbers of parameters, which the models' hashes imply."""
    if isinstance(value, dict):
        return {key: _without_parameters(item) for key, item in value.items() if key != "parameters"}
    return list(map(_without_parameters, value)) if isinstance(value, list) else value


def _check_members(path: Path, members: Sequence[Mapping[str, Any]]) -> None:
    """Check that writing the file would not lose the figures of another ensemble.

    The same runs, trained again, may replace their own figures, which are out of date.
    """
    if not path.exists() or is_stream(path):
        return
    held = [member["run"] for member in records.read(path, records.Ensemble)["members"]]
    if held != [member["run"] for member in members]:
        raise BadInput(f"{path} holds the ensemble of {', '.join(held)}; name another file with --output")


def _check_split(first: _Member, other: _Member) -> None:
    """Check that both hold back the same images; else one's validation images would be the other's training images."""
    held, wanted = other.recipe.data.validation, first.recipe.data.validation
    if held != wanted:
        raise BadInput(
            f"{other.run} and {first.run} do not hold back the same validation images "
            f"(data.split {held} and {wanted}); leave out one of them"
        )


def _ask(
    models: "Sequence[keras.Model]", splits: Mapping[str, Images], *, tta: bool
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the models' mean probabilities, float64 [n, 10] for each split, and how long that took."""
    begin = time.perf_counter()
    images = sum(map(len, splits.values()))
    with bar("eval", images * len(models) * (averaging.VIEWS if tta else 1), "images") as advance:
        probabilities = {
            name: averaging.probabilities(models, split.images, tta=tta, advance=advance)
            for name, split in splits.items()
        }
    seconds = time.perf_counter() - begin
    return probabilities, {"seconds": seconds, "images_per_second": images / seconds}


def _held_back_figures(
    models: "Sequence[keras.Model]", splits: Mapping[str, Images], classes: Sequence[str], *, tta: bool
) -> dict[str, Any]:
    """Return the figures of an average, without the training images, on which it would take long."""
    held_back = {name: split for name, split in splits.items() if name != "train"}
    probabilities, speed = _ask(models, held_back, tta=tta)
    return _judged(held_back, probabilities, classes) | speed


def _judged(
    splits: Mapping[str, Images], probabilities: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, Any]:
    """Return all figures of the test images, and the basic ones of the other splits."""
    from fmnist.evaluation.metrics import accuracy_figures, figures

    return {
        name: figures(split.labels, probabilities[name], classes)
        if name == "test"
        else accuracy_figures(split.labels, probabilities[name])
        for name, split in splits.items()
    }


def _write_images(run: RunDir, matrix: np.ndarray, names: Sequence[str]) -> None:
    import tensorflow as tf

    from fmnist.training.boards import CONFUSION

    writer = tf.summary.create_file_writer(f"{utf8_path(run.tensorboard)}/final/test")
    with writer.as_default(step=0):
        tf.summary.image(CONFUSION, pictures.confusion_image(matrix, names)[np.newaxis])
    writer.close()


def _write_predictions(member: _Member, test: Images, probabilities: np.ndarray) -> None:
    mistakes = pictures.confident_mistakes(test.labels, probabilities, _MISTAKES)
    found = {
        "model": np.array(member.sha256),
        "labels": test.labels,
        "predicted": probabilities.argmax(axis=1).astype(np.uint8),
        "confidence": probabilities.max(axis=1).astype(np.float32),
        "mistakes": mistakes,
        "mistake_images": test.images[mistakes],
    }
    arrays.save(member.run.predictions, found, compress=True)
