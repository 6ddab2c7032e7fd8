"""Compute the metrics of a finished model from its probabilities and the true classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from fmnist.recipe.schema import CLASSES

_BINS = 15


def accuracy_figures(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Return the number of images, the accuracy, and the mean cross-entropy in nats.

    Args:
        y_true: integer [n], the classes 0..9.
        probabilities: float [n, 10].
    """
    return {
        "images": len(y_true),
        "accuracy": float(accuracy_score(y_true, probabilities.argmax(axis=1))),
        "loss": float(log_loss(y_true, probabilities, labels=range(CLASSES))),
    }


def figures(y_true: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return `accuracy_figures`, the accuracy's 95% Wilson interval, precision, recall, F1, calibration and confusions.

    A class that is never predicted has precision 0. The rows of the confusion matrix are the true classes.

    Args:
        y_true: integer [n], the classes 0..9.
        probabilities: float [n, 10].
        names: the names of the ten classes.
    """
    predicted = probabilities.argmax(axis=1)
    correct = predicted == y_true
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return {
        **accuracy_figures(y_true, probabilities),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro": _averages(y_true, predicted, "macro"),
        "weighted": _averages(y_true, predicted, "weighted"),
        "expected_calibration_error": expected_calibration_error(probabilities.max(axis=1), correct),
        "calibration": calibration(probabilities.max(axis=1), correct),
        "per_class": _per_class(y_true, predicted, names),
        "confusion_matrix": confusion_matrix(y_true, predicted, labels=range(CLASSES)).tolist(),
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    """Return the number of images, mean confidence and accuracy of each bin, of 15 of equal width, that holds any.

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
    """Return the mean distance between confidence and accuracy over the bins of `calibration`, weighted by their sizes.

    Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.

    Args:
        confidence: float [n], the probability of the predicted class.
        correct: bool [n].
    """
    bins = calibration(confidence, correct)
    distances = (row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins)
    return sum(distances) / len(confidence)


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
