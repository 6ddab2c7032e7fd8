"""How many devices a training takes, where it may choose."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest
from test_fit import ONE, TWO

from fmnist.data import dataset
from fmnist.errors import Interrupted
from fmnist.recipe import config
from fmnist.recipe.schema import DataConfig, ModelConfig, Recipe, TrainingConfig
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.training import calibration
from fmnist.training.job import train

EITHER = dataclasses.replace(TWO, optional=True)
RECIPE = Recipe(
    name="small",
    data=DataConfig(train_limit=3000),
    model=ModelConfig(hidden=(16,)),
    training=TrainingConfig(epochs=400, batch_size=128),
)


def test_a_small_network_takes_one_device_and_keeps_it(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run, stop = RunDir(tmp_path / "run"), Stop()
    stop.request()
    with pytest.raises(Interrupted):
        train(run, RECIPE, 0, data_dir, lambda: EITHER, stop)
    assert "2 devices train" in caplog.text
    began = run.jobs()["train"]
    assert set(began["calibration"]) == {"1", "2"}
    # On a busy machine two devices may have been the faster ones.
    taken = 2 if began["calibration"]["2"] >= 1.1 * began["calibration"]["1"] else 1
    assert began["devices"].startswith(f"{taken} CPU")

    # What was measured then decides again, even if the devices were as fast as each other now.
    recorded = json.loads(run.config.read_text())
    recorded["jobs"]["train"]["calibration"] = {"1": 100.0, "2": 5.0}
    run.config.write_text(json.dumps(recorded))
    stop = Stop()
    stop.request()
    with pytest.raises(Interrupted):
        train(run, RECIPE, 0, data_dir, lambda: EITHER, stop)
    assert "2 devices train 5 images/s, one 100: taking one" in caplog.text
    assert run.jobs()["train"]["calibration"] == {"1": 100.0, "2": 5.0}
    assert run.jobs()["train"]["devices"].startswith("1 CPU")
    assert taken == 2 or "went_on_from" not in run.jobs()["train"]


def test_more_devices_are_taken_where_they_pay(data_dir: Path) -> None:
    images = dataset.load_train(data_dir, RECIPE.data).train
    speeds = {"1": 100.0, "2": 150.0}
    assert calibration.settle(EITHER, RECIPE, images, speeds) == (TWO, speeds)
    # Figures of another machine decide nothing here.
    _, measured = calibration.settle(EITHER, RECIPE, images, {"1": 100.0, "8": 150.0})
    assert set(measured) == {"1", "2"}


def test_devices_that_cannot_train_it_are_not_taken(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = dataset.load_train(data_dir, RECIPE.data).train
    lacking = dataclasses.replace(EITHER, names=("CPU:0", "nowhere"))
    taken, speeds = calibration.settle(lacking, RECIPE, images, {})
    assert taken == ONE
    assert speeds["2"] == 0
    assert "2 of the devices cannot train this: " in caplog.text


def test_no_choice_no_measurement(data_dir: Path) -> None:
    images = dataset.load_train(data_dir, RECIPE.data).train
    short = config.replace(RECIPE, {"training.epochs": 2})
    assert calibration.settle(EITHER, short, images, {}) == (ONE, {})
    # A number that was given by hand is obeyed.
    assert calibration.settle(TWO, RECIPE, images, {}) == (TWO, {})
