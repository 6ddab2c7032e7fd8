"""`eval`: what the test set says about a run's final model. Nothing else reads the test set."""

import hashlib
import logging
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from fmnist import data, pictures, rundir
from fmnist.data import Images
from fmnist.errors import BadInput
from fmnist.model import CLASSES, IMAGE_SHAPE
from fmnist.progress import Advance, bar
from fmnist.rundir import RunDir

logger = logging.getLogger(__name__)

_BATCH_SIZE = 2000
_MISTAKES = 24
_BINS = 15


def evaluate(run: RunDir, data_dir: Path | None) -> dict[str, Any]:
    """Judge the run's model on the test set, unless that is done; write metrics.json and predictions.npz.

    predictions.npz holds, of the test images: `labels` and `predicted`, uint8 [n]; `confidence`, the probability of the
    predicted class, float32 [n]; and the most confident mistakes, the worst first: their `mistakes`, int64 [k], in
    those arrays, and `mistake_images`, uint8 [k, 28, 28].

    Args:
        run: the folder of a finished training.
        data_dir: where the data set's files are; None to find them as `fmnist data` does.

    Returns:
        What metrics.json holds.

    Raises:
        BadInput: no run or no model here, a model that cannot be used, or other data than it was trained on.
    """
    recipe, seed = run.recipe()
    model = load(run.model)
    trained = data.load_train(data_dir, recipe.data)
    test, source = data.load_test(data_dir)
    sha256 = {**trained.source.sha256, **source.sha256}
    model_sha256 = hashlib.sha256(run.model.read_bytes()).hexdigest()
    if run.metrics.exists() and run.predictions.exists():
        known = rundir.read_json(run.metrics, ("model", "data", "test"))
        if known["model"]["sha256"] == model_sha256 and known["data"]["sha256"] == sha256:
            logger.info("%s is finished; nothing to do", run.metrics)
            return known
    run.record("eval", devices=devices(), data=sha256)

    begin = time.perf_counter()
    splits = {"train": trained.train, "validation": trained.validation, "test": test}
    images = sum(map(len, splits.values()))
    with bar("eval", images, "images") as advance:
        logits = {name: _logits(model, split.images, advance) for name, split in splits.items()}
    seconds = time.perf_counter() - begin
    names = list(data.classes(source))
    figures_on_test = figures(test.labels, logits["test"], names)
    metrics = {
        "recipe": recipe.name,
        "seed": seed,
        "model": {
            "sha256": model_sha256,
            "parameters": model.count_params(),
        },
        "data": {
            "is_fashion_mnist": trained.source.is_fashion_mnist and source.is_fashion_mnist,
            "sha256": sha256,
            "classes": names,
        },
        "train": accuracy_figures(trained.train.labels, logits["train"]),
        "validation": accuracy_figures(trained.validation.labels, logits["validation"]),
        "test": figures_on_test,
        "seconds": seconds,
        "images_per_second": images / seconds,
    }
    _write_predictions(run, test, _probabilities(logits["test"]))
    _write_images(run, np.asarray(figures_on_test["confusion_matrix"]), names)
    rundir.write_json(run.metrics, metrics)
    return metrics


def accuracy_figures(y_true: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Number of images, accuracy and mean cross-entropy in nats.

    Args:
        y_true: integer [n], the classes 0..9.
        logits: float [n, 10].
    """
    return {
        "images": len(y_true),
        "accuracy": float(accuracy_score(y_true, logits.argmax(axis=1))),
        "loss": float(log_loss(y_true, _probabilities(logits), labels=range(CLASSES))),
    }


def figures(y_true: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """`accuracy_figures` and the accuracy's 95% Wilson interval, precision, recall and F1, calibration and confusions.

    A class that is never predicted has precision 0. The rows of the confusion matrix are the true classes.

    Args:
        y_true: integer [n], the classes 0..9.
        logits: float [n, 10].
        names: of the ten classes.
    """
    predicted = logits.argmax(axis=1)
    correct = predicted == y_true
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return {
        **accuracy_figures(y_true, logits),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro": _averages(y_true, predicted, "macro"),
        "weighted": _averages(y_true, predicted, "weighted"),
        "expected_calibration_error": expected_calibration_error(_probabilities(logits).max(axis=1), correct),
        "calibration": calibration(_probabilities(logits).max(axis=1), correct),
        "per_class": _per_class(y_true, predicted, names),
        "confusion_matrix": confusion_matrix(y_true, predicted, labels=range(CLASSES)).tolist(),
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """The number of images, mean confidence and accuracy of each of 15 bins of equal width that holds any.

    Args:
        confidence: float [n], the probability of the predicted class.
        correct: bool [n].
    """
    inner_edges = np.linspace(0, 1, _BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)
    return [
        {
            "bin": int(index),
            "images": int((bins == index).sum()),
            "confidence": float(confidence[bins == index].mean()),
            "accuracy": float(correct[bins == index].mean()),
        }
        for index in np.unique(bins)
    ]


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean distance of confidence and accuracy over the bins of `calibration`, weighted by their sizes.

    Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    bins = calibration(confidence, correct)
    distances = (row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins)
    return sum(distances) / len(confidence)


def load(path: Path) -> keras.Model:
    """Load a final model: uint8 [n, 28, 28] in, logits [n, 10] out.

    Raises:
        BadInput: it is missing, damaged or of another shape.
    """
    if not path.exists():
        raise BadInput(f"{path} is missing; run `fmnist train` first")
    # A GPU multiplies float32 in the shorter TensorFloat-32 by default; a prediction must not depend on the device.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # Keras would call a truncated file "not found".
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path} is truncated, or not a Keras model; remove it and run `fmnist train` again")
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = tuple(model.input_shape), tuple(model.output_shape)
    except Exception as error:  # a damaged file raises whatever its zip, JSON or HDF5 part meets
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path} cannot be loaded ({reason}); remove it and run `fmnist train` again") from error
    expected = (None, *IMAGE_SHAPE), (None, CLASSES)
    if shapes != expected:
        raise BadInput(
            f"{path} is another kind of model: {shapes[0]} to {shapes[1]}, not {expected[0]} to {expected[1]}"
        )
    return model


def _logits(model: keras.Model, images: np.ndarray, advance: Advance = lambda _: None) -> np.ndarray:
    ended = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda _batch, logs: advance(len(logs["outputs"])))
    logits = np.asarray(model.predict(images, batch_size=_BATCH_SIZE, verbose=0, callbacks=[ended]), np.float32)
    if not np.isfinite(logits).all():
        raise BadInput("the model's outputs are not finite numbers; run `fmnist train` again, with other settings")
    return logits


def _probabilities(logits: np.ndarray) -> np.ndarray:
    # In float64, because log_loss clips a probability at the resolution of its type.
    probabilities: np.ndarray = softmax(logits.astype(np.float64), axis=1)
    return probabilities


def _averages(y_true: np.ndarray, predicted: np.ndarray, average: str) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, predicted, labels=range(CLASSES), average=average, zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


def _per_class(y_true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    columns = precision_recall_fscore_support(y_true, predicted, labels=range(CLASSES), zero_division=0)
    return [
        {"name": name, "precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    ]


def _write_images(run: RunDir, matrix: np.ndarray, names: Sequence[str]) -> None:
    description = f"Rows: the true class; columns: the predicted one; both in the order {', '.join(names)}."
    writer = tf.summary.create_file_writer(str(run.tensorboard / "eval"))
    with writer.as_default(step=0):
        tf.summary.image("test/confusion_matrix", pictures.confusion_image(matrix)[np.newaxis], description=description)
    writer.close()


def _write_predictions(run: RunDir, test: Images, probabilities: np.ndarray) -> None:
    mistakes = pictures.confident_mistakes(test.labels, probabilities, _MISTAKES)
    with rundir.atomic_write(run.predictions) as file:
        np.savez_compressed(
            file,
            labels=test.labels,
            predicted=probabilities.argmax(axis=1).astype(np.uint8),
            confidence=probabilities.max(axis=1).astype(np.float32),
            mistakes=mistakes,
            mistake_images=test.images[mistakes],
        )


def devices() -> str:
    """What a model runs on here, for the record."""
    return ", ".join(device.name.removeprefix("/device:") for device in tf.config.list_logical_devices())
