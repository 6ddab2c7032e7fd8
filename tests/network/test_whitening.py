"""Whitening: what it makes of the pixels, and what it leaves alone."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from fmnist.data import dataset
from fmnist.data.dataset import TrainData
from fmnist.devices import choose
from fmnist.network import whitening
from fmnist.network.build import build
from fmnist.recipe.schema import DataConfig, ModelConfig, TrainingConfig
from fmnist.signals import Stop
from fmnist.training.trainer import Trainer

CONFIG = ModelConfig(hidden=(32,), whitening=0.3)


@pytest.fixture(scope="module")
def small(data_dir: Path) -> TrainData:
    return dataset.load_train(data_dir, DataConfig(train_limit=4000))


@pytest.mark.parametrize("square_root", [False, True])
def test_it_takes_out_the_mean_and_the_correlations_and_damps_the_small_variances(
    square_root: bool, small: TrainData
) -> None:
    model = build(dataclasses.replace(CONFIG, square_root=square_root))
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    found = whitening.components(small.train.images, square_root)
    whitening.apply(model, found, damping=0.3)
    outputs = keras.Model(model.inputs, layer.output).predict(small.train.images, verbose=0)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-4)
    covariance = found.vectors.T @ np.cov(outputs.T, bias=True) @ found.vectors
    np.testing.assert_allclose(covariance, np.diag(found.variances / (found.variances + 0.09)), atol=1e-3)
    # ZCA, of all whitenings, stays closest to the pixels: its kernel is symmetric.
    kernel = layer.get_weights()[0]
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-4)


def test_training_leaves_it_alone_and_the_model_is_stock(small: TrainData, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=2, weight_decay=0.1)
    result = Trainer(small, choose("cpu")).fit(
        CONFIG, training, seed=0, stop=Stop(), checkpoint_path=tmp_path / "checkpoint.npz"
    )
    expected = build(CONFIG)
    whitening.apply(expected, whitening.components(small.train.images), damping=0.3)
    for one, other in zip(result.model.layers[3].get_weights(), expected.layers[3].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    result.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logits = [model.predict(small.validation.images[:100], verbose=0) for model in (result.model, loaded)]
    np.testing.assert_array_equal(*logits)
    accuracy = np.mean(loaded.predict(small.validation.images, verbose=0).argmax(axis=1) == small.validation.labels)
    assert accuracy == pytest.approx(result.history["val_accuracy"][-1], abs=1e-3)
