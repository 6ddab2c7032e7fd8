"""The model in the formats of other runtimes, read back by those."""

import dataclasses
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import RUN, Command
from processes import ROOT

from fmnist.data import dataset
from fmnist.devices import choose
from fmnist.errors import BadInput, ExportFailed
from fmnist.evaluation import export
from fmnist.network.folding import folded
from fmnist.network.inference import load, logits
from fmnist.recipe import config
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.training.job import train


@pytest.fixture(scope="module")
def copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """In a folder that a pattern would miss."""
    return RunDir(shutil.copytree(finished / RUN, tmp_path_factory.mktemp("export") / "[*?]{x,y}\\ it's" / "run"))


def small(run: RunDir, data_dir: Path, **model: float | None) -> RunDir:
    keys = {"model.hidden": [64, 32], "training.epochs": 3, "data.train_limit": 6000}
    keys |= {f"model.{key}": value for key, value in model.items()}
    train(run, config.replace(config.load("wide-mlp"), keys), 0, data_dir, partial(choose, "cpu"), Stop())
    return run


@pytest.fixture(scope="module")
def contrasted(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A small model of `wide-mlp`'s kind."""
    return small(RunDir(tmp_path_factory.mktemp("export") / "contrasted"), data_dir)


@pytest.fixture(scope="module")
def whitened(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same without local contrast."""
    return small(RunDir(tmp_path_factory.mktemp("export") / "whitened"), data_dir, local_contrast=None)


@pytest.mark.parametrize("name", ["savedmodel", "tflite", "onnx"])
def test_models_with_every_kind_of_layer_agree_in_every_float_format(
    contrasted: RunDir, data_dir: Path, name: str
) -> None:
    for package in export.FORMATS[name].packages:
        pytest.importorskip(package)
    assert export.export(contrasted, name, data_dir).agreement > 0.97


@pytest.mark.parametrize("name", export.FORMATS)
def test_whitened_models_agree_in_every_format(whitened: RunDir, data_dir: Path, name: str) -> None:
    for package in export.FORMATS[name].packages:
        pytest.importorskip(package)
    check = export.export(whitened, name, data_dir)
    # Of the float formats `export` itself asks more.
    assert check.agreement > 0.97


def test_a_model_that_says_its_layers_in_a_row_can_be_exported(
    whitened: RunDir, data_dir: Path, tmp_path: Path
) -> None:
    run = RunDir(shutil.copytree(whitened.path, tmp_path / "run"))
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential([keras.Input((28, 28), dtype="uint8"), *layers]).save(run.model)
    assert export.export(run, "savedmodel", data_dir).agreement == 1


def test_what_is_linear_in_a_row_is_one_layer(whitened: RunDir, data_dir: Path) -> None:
    model = load(whitened.model)
    small = folded(model)
    dense = [layer for layer in small.layers if layer.weights]
    assert [layer.units for layer in dense] == [64, 32, 10]
    images = dataset.load_test(data_dir)[0].images
    np.testing.assert_allclose(logits(small, images), logits(model, images), atol=1e-3)


@pytest.mark.parametrize("name", ["savedmodel", "tflite", "onnx"])
def test_a_float_format_agrees_with_keras_on_the_whole_test_set(
    copy: RunDir, data_dir: Path, tmp_path: Path, name: str
) -> None:
    for package in export.FORMATS[name].packages:
        pytest.importorskip(package)
    # Twice: the second replaces the first.
    for _ in range(2):
        check = export.export(copy, name, data_dir)
    assert check.agreement >= 0.9999
    assert check.path.exists()
    assert check.path.parent == copy.exports
    assert not list(copy.exports.glob(".*"))
    # A batch of another size, from where it was put by whoever took it.
    elsewhere = tmp_path / check.path.name
    (shutil.copytree if check.path.is_dir() else shutil.copy)(check.path, elsewhere)
    logits = export.FORMATS[name].read(str(elsewhere))(np.zeros((3, 28, 28), np.uint8))
    assert logits.shape == (3, 10)
    assert logits.dtype == np.float32


PAGE = (ROOT / "docs" / "exports.md").read_text()


@pytest.mark.parametrize(("name", "block"), re.findall(r"^## `(.*?)`\n.*?^```python\n(.*?)^```", PAGE, re.M | re.S))
def test_the_page_loads_every_format_in_five_lines(
    copy: RunDir, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block: str
) -> None:
    """By the same names of input and output, it comes to the same answers."""
    for package in export.FORMATS[name].packages:
        pytest.importorskip(package)
    path = export.export(copy, name, data_dir).path
    shutil.copytree(path.parent, tmp_path / "results" / "tuned-mlp-seed0" / "export")
    monkeypatch.chdir(tmp_path)
    images = dataset.load_test(data_dir)[0].images[:100]
    said: dict[str, Any] = {"images": images}
    assert len(block.splitlines()) == 5
    exec(block, said)
    expected = logits(load(copy.model), images).argmax(axis=1)
    least = 0.9 if name == "tflite-int8" else 1
    assert (np.asarray(said["logits"]).argmax(axis=1) == expected).mean() >= least


def test_the_page_has_every_format() -> None:
    assert re.findall(r"^## `(.*?)`$", PAGE, re.M) == list(export.FORMATS)


def test_the_quantised_model_is_smaller_and_loses_half_a_point_at_most(copy: RunDir, data_dir: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    check = export.export(copy, "tflite-int8", data_dir)
    assert check.accuracy > check.keras_accuracy - 0.005
    whole = export.export(copy, "tflite", data_dir)
    assert check.path.stat().st_size < 0.6 * whole.path.stat().st_size


def test_what_does_not_agree_is_not_kept(copy: RunDir, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy.exports / "saved_model"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / "earlier").touch()
    honest = export.FORMATS["savedmodel"]
    wrong = dataclasses.replace(honest, read=lambda path: lambda images: -honest.read(path)(images))
    monkeypatch.setitem(export.FORMATS, "savedmodel", wrong)
    with pytest.raises(ExportFailed, match=r"saved_model: the same class as Keras on .*not kept"):
        export.export(copy, "savedmodel", data_dir)
    assert [left.name for left in path.iterdir()] == ["earlier"]
    assert not list(copy.exports.glob(".*"))


def test_a_missing_package_and_an_unknown_format_are_named(
    copy: RunDir, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="--format pmml: choose one of savedmodel, tflite, tflite-int8, onnx"):
        export.export(copy, "pmml", data_dir)
    absent = dataclasses.replace(export.FORMATS["onnx"], packages=("numpy", "no_such_package"))
    monkeypatch.setitem(export.FORMATS, "onnx", absent)
    with pytest.raises(BadInput, match="--format onnx needs no_such_package; `make export FORMAT=onnx` installs them"):
        export.export(copy, "onnx", data_dir)


@pytest.mark.parametrize(
    "name",
    ["savedmodel", *(pytest.param(name, marks=pytest.mark.faults) for name in ("tflite", "tflite-int8", "onnx"))],
)
def test_the_command_prints_the_agreement_and_nothing_of_the_exporter(run: Path, fmnist: Command, name: str) -> None:
    for package in export.FORMATS[name].packages:
        pytest.importorskip(package)
    result = fmnist("export", run, "--format", name, TF_CPP_MIN_LOG_LEVEL="0")
    assert result.stdout.startswith(f"{run}/export/{export.FORMATS[name].file}: the same class as Keras on ")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
