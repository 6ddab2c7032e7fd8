"""The figures on arrays whose answers are known."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from fmnist.evaluation import metrics as figures

NAMES = [f"class {label}" for label in range(10)]


def probabilities_for(predicted: list[int], margin: float = 5.0) -> np.ndarray:
    return softmax(margin * np.eye(10)[predicted], axis=1)


def test_accuracy_interval_is_wilsons() -> None:
    y_true = np.zeros(10, np.uint8)
    result = figures.figures(y_true, probabilities_for([0] * 8 + [1] * 2), NAMES)
    assert result["accuracy"] == 0.8
    # 8 of 10: the usual worked example.
    assert result["accuracy_interval"] == pytest.approx([0.4902, 0.9433], abs=1e-4)


def test_interval_of_a_perfect_score_stays_within_one() -> None:
    y_true = np.arange(10, dtype=np.uint8)
    low, high = figures.figures(y_true, probabilities_for(list(range(10))), NAMES)["accuracy_interval"]
    assert 0.7 < low < high <= 1


def test_per_class_figures_and_confusions() -> None:
    # Class 0: 3 of 4 found, one taken for 1. Class 1: 1 of 2 found, one taken for 0.
    result = figures.figures(np.array([0, 0, 0, 0, 1, 1]), probabilities_for([0, 0, 0, 1, 1, 0]), NAMES)
    assert result["confusion_matrix"][0][:2] == [3, 1]
    assert result["confusion_matrix"][1][:2] == [1, 1]
    assert np.sum(result["confusion_matrix"]) == 6
    assert result["per_class"][0] == {"name": "class 0", "precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    assert result["per_class"][1] == {"name": "class 1", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert result["weighted"]["recall"] == pytest.approx(4 / 6)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    y_true = np.repeat(np.arange(10), 3)
    result = figures.figures(y_true, probabilities_for(np.where(y_true == 9, 0, y_true).tolist()), NAMES)
    assert result["per_class"][9] == {"name": "class 9", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}
    assert result["macro"]["recall"] == pytest.approx(0.9)
    assert result["macro"]["precision"] == pytest.approx((8 + 0.5 + 0) / 10)
    json.dumps(result, allow_nan=False)


def test_loss_is_the_cross_entropy() -> None:
    assert figures.accuracy_figures(np.array([0, 1]), np.full((2, 10), 0.1))["loss"] == pytest.approx(np.log(10))
    # A confident mistake costs its margin, beyond what float32 probabilities could tell.
    confident = probabilities_for([0], margin=30.0)
    assert figures.accuracy_figures(np.array([1]), confident)["loss"] == pytest.approx(30, abs=1e-6)


def test_expected_calibration_error() -> None:
    # Bin (12/15, 13/15]: confidence 0.85, accuracy 0.5. Bin (14/15, 1]: confidence 1, accuracy 1.
    confidence = np.array([0.85, 0.85, 1.0, 1.0])
    correct = np.array([True, False, True, True])
    assert figures.expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.35)
    # Within one bin the signs cancel.
    assert figures.expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0)
    first, second = figures.calibration(confidence, correct)
    assert first == {"bin": 12, "images": 2, "confidence": pytest.approx(0.85), "accuracy": 0.5}
    assert second == {"bin": 14, "images": 2, "confidence": 1.0, "accuracy": 1.0}
    # 0.2 is the edge of the third bin and belongs to it, as 0.19 does: in two bins this would be 0.495.
    assert figures.expected_calibration_error(np.array([0.2, 0.19]), np.array([True, False])) == pytest.approx(0.305)
