"""Save a final model so that stock Keras loads it, load one, and compute logits with it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fmnist.errors import BadInput, explain
from fmnist.files import open_regular
from fmnist.progress import Advance
from fmnist.recipe.schema import CLASSES, IMAGE_SHAPE

_PREDICTION_BATCH = 2000
# Settings of layers that versions of Keras after 3.0 write even at their defaults, and that 3.0 refuses.
_LATER = {"optional", "quantization_config", "renorm", "renorm_clipping", "renorm_momentum"}


def save(model: keras.Model, path: str) -> None:
    """Write a final model to a `.keras` file that stock Keras loads, in any version from 3.0 on."""
    model.save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = json.dumps(_plain(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def _plain(part: Any) -> Any:
    """Return a part of a model's configuration as Keras 3.0 spells it."""
    if isinstance(part, list):
        return [_plain(element) for element in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "DTypePolicy":
        return part["config"]["name"]
    if part.get("class_name") == "Functional":
        # There is one input and one output; versions after 3.0 write each without a list around it.
        ends = {end: [part["config"][end]] for end in ("input_layers", "output_layers")}
        part = part | {"config": part["config"] | ends}
    # Versions spell initializers differently, and a model with weights does not need them.
    return {
        name: _plain(value) for name, value in part.items() if name not in _LATER and not name.endswith("_initializer")
    }


def load(path: Path) -> keras.Model:
    """Load a final model, which maps images, uint8 [n, 28, 28], to logits, float [n, 10].

    Raises:
        BadInput: the file is missing or damaged, or the model has another shape.
    """
    try:
        with open_regular(path) as file:
            is_zip = zipfile.is_zipfile(file)
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; run `fmnist train` first") from error
    except OSError as error:
        raise BadInput(explain(error)) from error
    # By default, GPUs multiply float32 in the less precise TensorFloat-32; predictions must not depend on the device.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # Keras would call a truncated file "not found".
    if not is_zip:
        raise BadInput(f"{path} is truncated, or not a Keras model; remove it and run `fmnist train` again")
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = tuple(model.input_shape), tuple(model.output_shape)
    except Exception as error:  # the parsers of zip, JSON and HDF5 raise many types for a damaged file
        if line := explain(error):
            raise BadInput(line) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path} cannot be loaded ({reason}); remove it and run `fmnist train` again") from error
    if isinstance(model, keras.Sequential):
        # A Sequential model does not list its operations.
        model = keras.Model(model.inputs, model.outputs)
    expected = (None, *IMAGE_SHAPE), (None, CLASSES)
    if shapes != expected:
        raise BadInput(
            f"{path} is another kind of model: {shapes[0]} to {shapes[1]}, not {expected[0]} to {expected[1]}"
        )
    return model


def logits(model: keras.Model, images: np.ndarray, advance: Advance = lambda _: None) -> np.ndarray:
    """Compute a final model's logits, float32 [n, 10], of images, uint8 [n, 28, 28].

    Args:
        advance: called with the number of images after each batch.

    Raises:
        BadInput: a logit is not a finite number.
    """
    ended = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda _batch, logs: advance(len(logs["outputs"])))
    said = np.asarray(model.predict(images, batch_size=_PREDICTION_BATCH, verbose=0, callbacks=[ended]), np.float32)
    if not np.isfinite(said).all():
        raise BadInput("the model's outputs are not finite numbers; run `fmnist train` again, with other settings")
    return said
