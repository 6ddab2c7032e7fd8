"""Run `export`: write the final model in formats of other runtimes, and check each on the test images."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist.data import dataset
from fmnist.devices import numerics
from fmnist.errors import BadInput, ExportFailed
from fmnist.evaluation.job import devices
from fmnist.files import check_replaceable, recover_folder, replace_folder, utf8_path
from fmnist.run import identity
from fmnist.run.folder import RunDir
from fmnist.text import printable

if TYPE_CHECKING:
    import keras

_CALIBRATION_IMAGES = 1000


@dataclass(frozen=True)
class Format:
    """A format to export to.

    file: the name of the file or folder in the run's folder `export`.
    write: takes the model, training images, uint8 [n, 28, 28], and the path to write.
    read: takes a path, and returns a function that maps images, uint8 [n, 28, 28], to logits, float32 [n, 10].
    packages: what `write` and `read` import beyond this package's own dependencies.
    least_agreement: the least share of test images to which the export must give the same class as Keras.
    most_loss: the most accuracy on the test images that the export may lose.
    """

    file: str
    write: Callable[["keras.Model", np.ndarray, str], Any]
    read: Callable[[str], Callable[[np.ndarray], np.ndarray]]
    packages: tuple[str, ...] = ()
    least_agreement: float = 0.9999
    most_loss: float = 1.0


@dataclass(frozen=True)
class Check:
    """A comparison of an exported model with the Keras model on all test images.

    agreement: the share of images to which both give the same class.
    """

    path: Path
    agreement: float
    accuracy: float
    keras_accuracy: float

    def __str__(self) -> str:
        return (
            f"{printable(self.path)}: the same class as Keras on {self.agreement:.2%} of the test images, "
            f"accuracy {self.accuracy:.4f} (Keras {self.keras_accuracy:.4f})"
        )


def export(run: RunDir, name: str, data_dir: Path | None, choose: Callable[[], object] = lambda: None) -> Check:
    """Write the run's model as `name` (of FORMATS) into the run's folder `export`, if it agrees with the Keras model.

    A float format must give the same class on 99.99% of the test images; the quantised one may lose 0.5 points of
    accuracy.

    Args:
        data_dir: the folder of the data set's files; None to find them as `fmnist data` does.
        choose: called before TensorFlow is used, to choose its devices.

    Raises:
        BadInput: the format is unknown, a package or the model is missing, or the model was trained on other data.
        ExportFailed: the exported model does not agree; an earlier export stays.
    """
    if name not in FORMATS:
        raise BadInput(f"--format {name}: choose one of {', '.join(FORMATS)}")
    wanted = FORMATS[name]
    missing = [package for package in wanted.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(f"--format {name} needs {', '.join(missing)}; `make export FORMAT={name}` installs them")
    recipe, _ = run.recipe()
    sha256 = identity.of_model(run, stands_alone=True)
    everything, trained_on = dataset.load_images(data_dir)
    test, source = dataset.load_test(data_dir)
    hashes = {**trained_on.sha256, **source.sha256}
    run.check_data(hashes)
    train, _ = dataset.split(everything, recipe.data)
    choose()
    from fmnist.network.folding import folded
    from fmnist.network.inference import load, logits

    model = load(run.model)
    run.record("export", devices=devices(), data=hashes, numerics=numerics())
    path = run.exports / wanted.file
    if path.is_symlink() or not path.is_dir():
        check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        held.enter_context(run.lock(f"export-{name}"))
        recover_folder(path)
        # Remove what a killed export left.
        for left in path.parent.iterdir():
            if left.name.startswith(f".{wanted.file}."):
                shutil.rmtree(left, ignore_errors=True)
        folder = held.enter_context(
            tempfile.TemporaryDirectory(
                dir=utf8_path(path.parent), prefix=f".{wanted.file}.", ignore_cleanup_errors=True
            )
        )
        made = os.path.join(folder, wanted.file)
        expected = logits(model, test.images).argmax(axis=1)
        wanted.write(_named(folded(model)), train.images, made)
        found = wanted.read(made)(test.images).argmax(axis=1)
        check = Check(
            path,
            agreement=float((found == expected).mean()),
            accuracy=float((found == test.labels).mean()),
            keras_accuracy=float((expected == test.labels).mean()),
        )
        if check.agreement < wanted.least_agreement or check.keras_accuracy - check.accuracy > wanted.most_loss:
            raise ExportFailed(f"{check}: not enough, so it is not kept")
        identity.check_unchanged(run, sha256)
        replace_folder(made, path)
    return check


def _named(model: "keras.Model") -> "keras.Model":
    """Return the model with names of its input and output, which every format keeps."""
    import keras

    named = keras.Model({"image": model.inputs[0]}, {"logits": model.outputs[0]})
    # Keras exports to ONNX only models that have been called before.
    named.predict({"image": np.zeros((1, *model.input_shape[1:]), np.uint8)}, verbose=0)
    return named


def _write_saved_model(model: "keras.Model", _images: np.ndarray, path: str) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _read_saved_model(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    # The signature lives as long as what it was loaded with.
    return lambda images: np.asarray(loaded.signatures["serving_default"](image=images)["logits"])


def _write_tflite(model: "keras.Model", _images: np.ndarray, path: str) -> None:
    model.export(path, format="litert", verbose=False)


def _write_tflite_int8(model: "keras.Model", images: np.ndarray, path: str) -> None:
    import tensorflow as tf

    chosen = np.random.default_rng(0).choice(len(images), min(_CALIBRATION_IMAGES, len(images)), replace=False)
    model.export(
        path,
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ({"image": images[index : index + 1]} for index in chosen),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )


def _read_tflite(path: str) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()
    return lambda images: np.asarray(runner(image=images)["logits"])


def _write_onnx(model: "keras.Model", _images: np.ndarray, path: str) -> None:
    import keras
    import tensorflow as tf

    # TensorFlow computes GELU with erfc, which ONNX lacks.
    gelu = keras.activations.gelu
    for layer in model.layers:
        if getattr(layer, "activation", None) is gelu:
            layer.activation = lambda values: values * (1 + tf.math.erf(values / np.sqrt(2))) / 2
    model.export(path, format="onnx", verbose=False)


def _read_onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"image": images})[0])


_LITERT = ("ai_edge_litert",)
FORMATS = {
    "savedmodel": Format("saved_model", _write_saved_model, _read_saved_model),
    "tflite": Format("model.tflite", _write_tflite, _read_tflite, _LITERT),
    "tflite-int8": Format(
        "model-int8.tflite", _write_tflite_int8, _read_tflite, _LITERT, least_agreement=0.0, most_loss=0.005
    ),
    "onnx": Format("model.onnx", _write_onnx, _read_onnx, ("tf2onnx", "onnx", "onnxruntime")),
}
