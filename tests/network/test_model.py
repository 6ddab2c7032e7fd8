"""The network that a configuration stands for."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from fmnist.network.build import build, chain, receptive_fields
from fmnist.network.inference import load, save
from fmnist.recipe.schema import ModelConfig

EVERY_KEY = ModelConfig(
    (16, 8), "gelu", batch_normalization=True, dropout=0.1, l2=0.1, square_root=True, whitening=0.5, local_contrast=2,
    receptive_field=2
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(256, size=(50, 28, 28), dtype=np.uint8)


def test_square_roots_are_taken_of_pixels_scaled_to_1() -> None:
    plain, rooted = build(ModelConfig(hidden=(8,))), build(ModelConfig(hidden=(8,), square_root=True))
    rooted.set_weights(plain.get_weights())
    # Squares of whole numbers, so that the roots are pixels too.
    roots = IMAGES // 16
    # sqrt(roots ** 2 / 255) is roots / 255 times sqrt(255).
    hidden = [keras.Model(model.inputs, model.layers[-2].output) for model in (plain, rooted)]
    np.testing.assert_allclose(
        hidden[1].predict(roots**2, verbose=0), hidden[0].predict(roots, verbose=0) * np.sqrt(255), rtol=1e-4, atol=1e-5
    )


def test_local_contrast_divides_each_pixel_by_the_root_mean_square_around_it() -> None:
    model = build(ModelConfig(hidden=(8,), local_contrast=1.5), policy="mixed_bfloat16")
    fixed, learning = chain(model)
    assert fixed
    assert [type(operation).__name__ for operation in learning] == ["Dense", "Activation", "Dense"]
    rows, columns = np.mgrid[:28, :28].reshape(2, 784, 1)
    window = np.exp(-((rows - rows.T) ** 2 + (columns - columns.T) ** 2) / (2 * 1.5**2))
    pixels = IMAGES.reshape(-1, 784) / 255
    around = pixels**2 @ (window / window.sum(axis=0))
    np.testing.assert_allclose(fixed.predict(IMAGES, verbose=0), pixels / np.sqrt(around + 0.01), rtol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_saved_model_says_the_same_and_names_nothing_that_older_versions_of_keras_lack(
    tmp_path: Path, policy: str
) -> None:
    model = build(EVERY_KEY, 1, policy)
    save(model, str(tmp_path / "model.keras"))
    loaded = load(tmp_path / "model.keras")
    assert (loaded.predict(IMAGES, verbose=0) == model.predict(IMAGES, verbose=0)).all()
    dense = next(layer for layer in loaded.layers if layer.trainable_weights)
    assert (dense.dtype_policy.name, dense.kernel_regularizer.l2) == (policy, np.float32(0.1))
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        written = json.loads(file.read("config.json"))
    known = {
        "name", "trainable", "dtype", "units", "activation", "use_bias", "rate", "seed", "noise_shape", "data_format",
        "batch_shape", "sparse", "ragged", "scale", "offset", "axis", "momentum", "epsilon", "center", "synchronized",
        "target_shape", "dims",
    }  # fmt: skip
    for layer in written["config"]["layers"]:
        others = {key for key in layer["config"] if not key.endswith(("_regularizer", "_constraint"))}
        assert others <= known


def test_a_receptive_field_gathers_the_first_layers_weights_around_places_all_over_the_image() -> None:
    config = ModelConfig(hidden=(300, 20), kernel_initializer="he_normal")
    spread, gathered = (
        build(ModelConfig(**vars(config) | {"receptive_field": field}), seed=4) for field in (None, 2.0)
    )
    energy = np.square(gathered.get_weights()[0]).reshape(28, 28, 300)
    rows, columns = np.mgrid[:28, :28]
    top, left = ((energy * axis[:, :, np.newaxis]).sum((0, 1)) / energy.sum((0, 1)) for axis in (rows, columns))
    distance = np.sqrt((rows[:, :, np.newaxis] - top) ** 2 + (columns[:, :, np.newaxis] - left) ** 2)
    assert np.quantile((energy * (distance < 8)).sum((0, 1)) / energy.sum((0, 1)), 0.05) > 0.95
    assert min(top.min(), left.min()) < 3
    assert max(top.max(), left.max()) > 24
    # No unit begins louder than it would have, and the layers above begin alike.
    before, after = (np.linalg.norm(model.get_weights()[0], axis=0) for model in (spread, gathered))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    np.testing.assert_array_equal(spread.get_weights()[2], gathered.get_weights()[2])
    again = build(ModelConfig(**vars(config) | {"receptive_field": 2.0}), seed=4)
    np.testing.assert_array_equal(again.get_weights()[0], gathered.get_weights()[0])


def test_receptive_fields_of_another_size_are_at_the_same_places() -> None:
    small, large = (receptive_fields(50, size, seed=4) for size in (2.0, 4.0))
    assert small.max() <= 1
    np.testing.assert_allclose(large, small**0.25)


def test_a_saved_model_of_every_key_loads_without_this_package(tmp_path: Path) -> None:
    model = build(EVERY_KEY)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    script = (
        "import json, sys, keras, numpy; "
        "model = keras.models.load_model('model.keras'); "
        "print(json.dumps(model.predict(numpy.load('images.npy'), verbose=0).tolist())); "
        "assert not any(name.startswith('fmnist') for name in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = np.array(json.loads(ran.stdout.splitlines()[-1]))
    assert said == pytest.approx(model.predict(IMAGES, verbose=0), abs=1e-6)
