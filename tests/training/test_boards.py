"""What TensorBoard finds of a final training, and of searches."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import RUN
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing import plugin_event_multiplexer as event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from fmnist.data import dataset
from fmnist.devices import choose
from fmnist.network import pictures
from fmnist.recipe import config
from fmnist.recipe.schema import DataConfig, ModelConfig, TrainingConfig
from fmnist.run.folder import RunDir, read_trials
from fmnist.signals import Stop
from fmnist.training import boards
from fmnist.training.trainer import Trainer


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in events(folder).Tensors(tag)]


def numbers(folder: Path, tag: str) -> list[float]:
    return [float(tf.make_ndarray(event.tensor_proto)) for event in events(folder).Tensors(tag)]


def session_groups(folder: Path) -> list[Any]:
    """The rows of the HParams page."""
    multiplexer = event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS], slice_size=100, include_metrics=True,
        col_params=[{"metric": {"tag": "trial/score"}, "order": api_pb2.ORDER_DESC}],
    )  # fmt: skip
    return list(list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups)


def test_each_epoch_has_its_speed_and_the_first_its_pictures(finished: Path) -> None:
    """The epochs of this training are milliseconds, too short for pictures of each."""
    folder = finished / RUN / "tb" / "final"
    assert {path.name for path in folder.iterdir()} == {"train", "validation", "test"}
    for split in ("train", "validation"):
        assert steps(folder / split, "curves/loss") == [0, 1, 2]
    assert steps(folder / "train", "speed/images_a_second") == [0, 1, 2]
    assert 0 in steps(folder / "validation", "pictures/confusion_matrix")
    assert 0 in steps(folder / "validation", "pictures/most_confident_mistakes")
    assert steps(folder / "test", "pictures/confusion_matrix") == [0]
    assert all(value > 0 for value in numbers(folder / "train", "speed/milliseconds_a_step"))


def test_trials_of_one_number_of_several_runs_are_several_and_have_the_searchs_score(
    finished: Path, tmp_path: Path
) -> None:
    """As TensorBoard's server tells its page: no mean over unlike trials, no last epoch's figure for the best's."""
    runs = [RunDir(shutil.copytree(finished / RUN, tmp_path / RUN.name)), RunDir(tmp_path / "other-seed1")]
    for number, (score, epochs) in enumerate([(0.875, 9), (0.75, 4)]):
        board = boards.TrialBoard(
            runs[1].tensorboard / "trials" / f"{number:02}", f"{number:02} {runs[1].name}", {"training.momentum": 0.5}
        )
        board.session.on_train_begin()
        board.epoch(epochs - 1, {"loss": 1.0, "val_accuracy": 0.125})
        board.session.on_train_end()
        board.end(score, epochs - 3, epochs)
    groups = {group.name: group for group in session_groups(tmp_path)}
    trials = read_trials(runs[0].trials)
    expected = {f"{trial['trial']} {runs[0].name}": (float(trial["score"]), float(trial["epochs"])) for trial in trials}
    expected |= {"00 other-seed1": (0.875, 9), "01 other-seed1": (0.75, 4)}
    assert groups.keys() == expected.keys()
    for name, (best, count) in expected.items():
        found = {metric.name.tag: metric.value for metric in groups[name].metric_values}
        assert found["trial/score"] == pytest.approx(best)
        assert found["trial/epochs"] == count
        assert len(groups[name].sessions) == 1
    # The spaces of both searches.
    assert "training.momentum" in groups["00 other-seed1"].hparams
    assert "training.learning_rate" in groups[f"{trials[0]['trial']} {runs[0].name}"].hparams


def test_a_trial_that_is_told_anew_leaves_nothing_of_what_it_was(tmp_path: Path) -> None:
    for values in ([0.5, 0.625, 0.75], [0.25, 0.375]):
        board = boards.TrialBoard(tmp_path / "00", "run 00", {"model.l2": 0.5})
        for epoch, value in enumerate(values):
            board.epoch(epoch, {"val_accuracy": value})
        board.end(max(values), len(values) - 1, len(values))
    assert numbers(tmp_path / "00", "trial_curves/val_accuracy") == [0.25, 0.375]


def test_the_default_search_and_its_training_are_few_enough_for_tensorboard_to_tick(finished: Path) -> None:
    """It ticks runs by itself up to forty; a run is a folder with events."""
    tb = finished / RUN / "tb"
    trials, final = ({path.parent for path in (tb / name).rglob("*tfevents*")} for name in ("trials", "final"))
    assert len(trials) == len(read_trials(finished / RUN / "trials.csv"))
    search = config.load("tuned-mlp").search
    assert search
    assert search.trials + len(final) <= 40
    assert {path for path in tb.rglob("*tfevents*") if path.parent not in trials | final} == set()


def test_the_pictures_are_those_of_the_validation_images(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "_PICTURES_SHARE", float("inf"))
    loaded = dataset.load_train(data_dir, DataConfig(train_limit=1000))
    names = dataset.classes(loaded.source)
    board = boards.FinalBoard(tmp_path, loaded.validation, names, 1000, 128)
    training = TrainingConfig(epochs=2)
    result = Trainer(loaded, choose("cpu")).fit(
        ModelConfig(hidden=(16,)), training, seed=0, stop=Stop(), checkpoint_path=tmp_path / "c.npz",
        callbacks=[board],
    )  # fmt: skip
    found = events(tmp_path / "validation").Tensors("pictures/confusion_matrix")
    assert [event.step for event in found] == [0, 1]
    predicted = result.model.predict(loaded.validation.images, verbose=0).argmax(axis=1)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (loaded.validation.labels, predicted), 1)
    width, height, png = tf.make_ndarray(found[-1].tensor_proto)
    assert (int(width), int(height)) == (540, 540)
    assert (np.asarray(tf.io.decode_png(png)) == pictures.confusion_image(matrix, names)).all()
