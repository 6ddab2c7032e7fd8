"""What TensorBoard finds of a final training."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import RUN, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.data import dataset
from fmnist.devices import choose
from fmnist.network import pictures
from fmnist.recipe.schema import DataConfig, ModelConfig, TrainingConfig
from fmnist.signals import Stop
from fmnist.training import boards
from fmnist.training.trainer import Trainer


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in events(folder).Tensors(tag)]


def test_each_epoch_has_its_speed_and_the_first_its_pictures(finished: Path) -> None:
    """The epochs of this training are milliseconds, too short for pictures of each."""
    folder = finished / RUN / "tb" / "final"
    assert {path.name for path in folder.iterdir()} == {"train", "validation", "pictures"}
    board = folder / "pictures"
    assert steps(board, "speed/images_a_second") == [0, 1, 2]
    assert 0 in steps(board, "validation/confusion_matrix")
    assert 0 in steps(board, "validation/most_confident_mistakes")
    seconds = [tf.make_ndarray(event.tensor_proto) for event in events(board).Tensors("speed/milliseconds_a_step")]
    assert all(value > 0 for value in seconds)


def test_the_pictures_are_those_of_the_validation_images(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "_PICTURES_SHARE", float("inf"))
    loaded = dataset.load_train(data_dir, DataConfig(train_limit=1000))
    names = dataset.classes(loaded.source)
    board = boards.ValidationBoard(tmp_path, loaded.validation, names, 1000, 128, profile=False)
    training = TrainingConfig(epochs=2)
    result = Trainer(loaded, choose("cpu")).fit(
        ModelConfig(hidden=(16,)), training, seed=0, stop=Stop(), checkpoint_path=tmp_path / "c.npz",
        callbacks=[board],
    )  # fmt: skip
    found = events(tmp_path / "pictures").Tensors("validation/confusion_matrix")
    assert [event.step for event in found] == [0, 1]
    predicted = result.model.predict(loaded.validation.images, verbose=0).argmax(axis=1)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (loaded.validation.labels, predicted), 1)
    width, height, png = tf.make_ndarray(found[-1].tensor_proto)
    assert (int(width), int(height)) == (320, 320)
    assert (np.asarray(tf.io.decode_png(png)) == pictures.confusion_image(matrix)).all()


def test_the_profiler_records_on_request(tmp_path: Path, fmnist: Command) -> None:
    fixed = ("--recipe", "baseline-mlp", "--set", "data.train_limit=1000", "--set", "training.epochs=3")
    fmnist("train", *fixed, "--run", "run", "--profile")
    assert list((tmp_path / "run").glob("tb/final/plugins/profile/*/*.xplane.pb"))
