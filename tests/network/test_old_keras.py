"""The oldest Keras that loads what `train` saves: an environment of its own, without TensorFlow and without fmnist."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fmnist.network import inference
from fmnist.network.build import build
from fmnist.recipe import config

pytestmark = pytest.mark.old_keras

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "old-keras" / "bin" / "python"
IMAGES = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype=np.uint8)
# Of the first layers' sums, in another order.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}
LOAD = """if True:
    import json, sys
    import keras, numpy
    images = numpy.load("images.npy")
    models = {name: keras.models.load_model(name) for name in sys.argv[1:]}
    said = {name: (model(images), model.predict(images, verbose=0)) for name, model in models.items()}
    numpy.savez("said.npz", **{name: numpy.stack([numpy.asarray(one) for one in both]) for name, both in said.items()})
    print(json.dumps([keras.__version__, keras.backend.backend(), "tensorflow" in sys.modules]))
"""


@pytest.fixture(scope="module")
def version() -> str:
    """The Keras of the environment, which is made if it is not there."""
    subprocess.run(["make", "--silent", "build/old-keras.stamp"], cwd=ROOT, check=True)
    locked = re.search(r"^keras==(\S+)", (ROOT / "requirements" / "old-keras.txt").read_text(), re.MULTILINE)
    assert locked
    return locked[1]


@pytest.mark.parametrize("backend", ["jax", "numpy"])
def test_every_recipes_model_says_the_same(tmp_path: Path, version: str, backend: str) -> None:
    expected, tolerance = {}, {}
    for recipe in config.names():
        for policy in TOLERANCE if recipe in ("wide-mlp", "regularized-mlp") else ("float32",):
            network, name = build(config.load(recipe).model, 0, policy), f"{recipe}-{policy}.keras"
            random = np.random.default_rng(1)
            # Statistics and biases as of a training, and none of them as it began.
            network.set_weights([array + random.uniform(0, 0.1, array.shape) for array in network.get_weights()])
            inference.save(network, str(tmp_path / name))
            expected[name], tolerance[name] = np.asarray(network(IMAGES)), TOLERANCE[policy]
    np.save(tmp_path / "images.npy", IMAGES)
    environment = {"KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    command = [str(PYTHON), "-c", LOAD, *expected]
    loaded = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == [version, backend, False]
    with np.load(tmp_path / "said.npz") as said:
        for name, logits in expected.items():
            for found in said[name]:
                np.testing.assert_allclose(found, logits, atol=tolerance[name] * np.abs(logits).max(), err_msg=name)
