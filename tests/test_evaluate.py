"""The figures on arrays whose answers are known, and `evaluate` on real files."""

import json
import struct
from pathlib import Path

import keras
import numpy as np
import pytest

from fmnist import config, data, evaluate, model, rundir
from fmnist.errors import BadInput
from fmnist.rundir import RunDir
from fmnist.schema import DataConfig, ModelConfig

NAMES = [f"class {label}" for label in range(10)]


def logits_for(predicted: list[int], margin: float = 5.0) -> np.ndarray:
    return margin * np.eye(10, dtype=np.float32)[predicted]


def start_run(path: Path, **sections: object) -> RunDir:
    run = RunDir(path)
    run.claim(config.resolve({"name": "small", "description": "A test.", **sections}, "test"), seed=3)
    return run


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of MNIST's layout that is not Fashion-MNIST."""
    directory = tmp_path_factory.mktemp("other")
    random = np.random.default_rng(0)
    for part, n in (("train", 6100), ("t10k", 50)):
        write_idx(directory / f"{part}-images-idx3-ubyte", random.integers(0, 256, (n, 28, 28), np.uint8))
        write_idx(directory / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return directory


@pytest.fixture
def other_run(tmp_path: Path, other_data: Path) -> RunDir:
    """A run that was trained, however badly, on `other_data`."""
    run = start_run(tmp_path / "run")
    model.build(ModelConfig(hidden=(4,))).save(run.model)
    run.record("train", devices="1 CPU", data=data.load_train(other_data, DataConfig()).source.sha256)
    return run


def test_accuracy_interval_is_wilsons() -> None:
    y_true = np.zeros(10, np.uint8)
    result = evaluate.figures(y_true, logits_for([0] * 8 + [1] * 2), NAMES)
    assert result["accuracy"] == 0.8
    # 8 of 10: the usual worked example.
    assert result["accuracy_interval"] == pytest.approx([0.4902, 0.9433], abs=1e-4)


def test_interval_of_a_perfect_score_stays_within_one() -> None:
    y_true = np.arange(10, dtype=np.uint8)
    low, high = evaluate.figures(y_true, logits_for(list(range(10))), NAMES)["accuracy_interval"]
    assert 0.7 < low < high <= 1


def test_per_class_figures_and_confusions() -> None:
    # Class 0: 3 of 4 found, one taken for 1. Class 1: 1 of 2 found, one taken for 0.
    result = evaluate.figures(np.array([0, 0, 0, 0, 1, 1]), logits_for([0, 0, 0, 1, 1, 0]), NAMES)
    assert result["confusion_matrix"][0][:2] == [3, 1]
    assert result["confusion_matrix"][1][:2] == [1, 1]
    assert np.sum(result["confusion_matrix"]) == 6
    assert result["per_class"][0] == {"name": "class 0", "precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    assert result["per_class"][1] == {"name": "class 1", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert result["weighted"]["recall"] == pytest.approx(4 / 6)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    y_true = np.repeat(np.arange(10), 3)
    result = evaluate.figures(y_true, logits_for(np.where(y_true == 9, 0, y_true).tolist()), NAMES)
    assert result["per_class"][9] == {"name": "class 9", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}
    assert result["macro"]["recall"] == pytest.approx(0.9)
    assert result["macro"]["precision"] == pytest.approx((8 + 0.5 + 0) / 10)
    json.dumps(result, allow_nan=False)


def test_loss_is_the_cross_entropy() -> None:
    assert evaluate.accuracy_figures(np.array([0, 1]), np.zeros((2, 10)))["loss"] == pytest.approx(np.log(10))
    # A confident mistake costs its margin, beyond what float32 probabilities could tell.
    assert evaluate.accuracy_figures(np.array([1]), logits_for([0], margin=30.0))["loss"] == pytest.approx(30, abs=1e-6)


def test_expected_calibration_error() -> None:
    # Bin (12/15, 13/15]: confidence 0.85, accuracy 0.5. Bin (14/15, 1]: confidence 1, accuracy 1.
    confidence = np.array([0.85, 0.85, 1.0, 1.0])
    correct = np.array([True, False, True, True])
    assert evaluate.expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.35)
    # Within one bin the signs cancel.
    assert evaluate.expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0)
    first, second = evaluate.calibration(confidence, correct)
    assert first == {"bin": 12, "images": 2, "confidence": pytest.approx(0.85), "accuracy": 0.5}
    assert second == {"bin": 14, "images": 2, "confidence": 1.0, "accuracy": 1.0}
    # 0.2 is the edge of the third bin and belongs to it, as 0.19 does: in two bins this would be 0.495.
    assert evaluate.expected_calibration_error(np.array([0.2, 0.19]), np.array([True, False])) == pytest.approx(0.305)


def test_evaluate_on_the_real_data(tmp_path: Path, data_dir: Path) -> None:
    run = start_run(tmp_path / "run", data={"train_limit": 1000})
    network = model.build(ModelConfig(hidden=(16,)), seed=1)
    network.save(run.model)
    run.record("train", devices="1 CPU", data=data.load_train(data_dir, DataConfig()).source.sha256)

    metrics = evaluate.evaluate(run, data_dir)

    assert rundir.read_json(run.metrics) == metrics
    assert metrics["recipe"] == "small"
    assert metrics["seed"] == 3
    assert metrics["data"]["is_fashion_mnist"]
    assert metrics["data"]["classes"][9] == "Ankle boot"
    assert metrics["data"]["sha256"].keys() == data.SHA256.keys()
    assert metrics["model"]["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert [metrics[split]["images"] for split in ("train", "validation", "test")] == [1000, 6000, 10_000]
    assert metrics["test"]["per_class"][0]["support"] == 1000
    assert rundir.read_json(run.config)["jobs"]["eval"]["data"] == metrics["data"]["sha256"]
    assert list((run.tensorboard / "eval").iterdir())
    assert metrics["images_per_second"] == pytest.approx(17_000 / metrics["seconds"])

    # The same network in NumPy.
    images, _ = data.load_test(data_dir)
    hidden_kernel, hidden_bias, kernel, bias = network.get_weights()
    hidden = np.maximum(images.images.reshape(-1, 784) / 255 @ hidden_kernel + hidden_bias, 0)
    predicted = (hidden @ kernel + bias).argmax(axis=1)
    assert metrics["test"]["accuracy"] == pytest.approx((predicted == images.labels).mean(), abs=2e-4)

    with np.load(run.predictions) as arrays:
        assert (arrays["labels"] == images.labels).all()
        assert (arrays["predicted"] == predicted).mean() > 0.999
        assert (arrays["predicted"] == images.labels).mean() == pytest.approx(metrics["test"]["accuracy"])
        mistakes = arrays["mistakes"]
        assert (arrays["predicted"][mistakes] != images.labels[mistakes]).all()
        assert (np.diff(arrays["confidence"][mistakes]) <= 0).all()
        wrong = arrays["predicted"] != images.labels
        assert arrays["confidence"][mistakes[0]] == arrays["confidence"][wrong].max()
        assert (arrays["mistake_images"] == images.images[mistakes]).all()


def test_a_run_without_its_predictions_is_judged_again(other_run: RunDir, other_data: Path) -> None:
    evaluate.evaluate(other_run, other_data)
    other_run.predictions.unlink()
    evaluate.evaluate(other_run, other_data)
    assert other_run.predictions.exists()


def test_another_data_set_is_named_as_such(other_run: RunDir, other_data: Path) -> None:
    metrics = evaluate.evaluate(other_run, other_data)
    assert not metrics["data"]["is_fashion_mnist"]
    assert metrics["data"]["classes"] == list("0123456789")
    assert metrics["test"]["images"] == 50


def test_other_data_than_it_was_trained_on(other_run: RunDir, data_dir: Path) -> None:
    with pytest.raises(BadInput, match="train-images-idx3-ubyte is not the file that `train` of the run"):
        evaluate.evaluate(other_run, data_dir)
    assert not other_run.metrics.exists()


def test_no_run_and_no_model(tmp_path: Path, other_data: Path) -> None:
    with pytest.raises(BadInput, match="nothing holds no run; start one with"):
        evaluate.evaluate(RunDir(tmp_path / "nothing"), other_data)
    with pytest.raises(BadInput, match=r"model\.keras is missing; run `fmnist train`"):
        evaluate.evaluate(start_run(tmp_path / "run"), other_data)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_model_loses_no_earlier_result(other_run: RunDir, other_data: Path, keep: float) -> None:
    other_run.metrics.write_text("earlier")
    whole = other_run.model.read_bytes()
    other_run.model.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(BadInput, match=r"model\.keras is truncated.*run `fmnist train` again") as caught:
        evaluate.evaluate(other_run, other_data)
    assert "\n" not in str(caught.value)
    assert other_run.metrics.read_text() == "earlier"


def test_flipped_bytes_in_the_weights(other_run: RunDir, other_data: Path) -> None:
    whole = bytearray(other_run.model.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(byte ^ 0xFF for byte in whole[middle : middle + 64])
    other_run.model.write_bytes(whole)
    with pytest.raises(BadInput, match=r"model\.keras cannot be loaded"):
        evaluate.evaluate(other_run, other_data)


def test_model_of_another_shape(other_run: RunDir, other_data: Path) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(other_run.model)
    with pytest.raises(BadInput, match="another kind of model"):
        evaluate.evaluate(other_run, other_data)


def test_outputs_that_are_not_finite(other_run: RunDir, other_data: Path) -> None:
    network = model.build(ModelConfig(hidden=()))
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    network.save(other_run.model)
    with pytest.raises(BadInput, match="not finite"):
        evaluate.evaluate(other_run, other_data)
    assert not other_run.metrics.exists()
