"""What an interrupted training goes on from, and what it does not."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from test_fit import ONE, TWO

from fmnist import files
from fmnist.data import dataset
from fmnist.devices import Devices
from fmnist.errors import BadInput, Interrupted
from fmnist.recipe import config
from fmnist.recipe.schema import DataConfig, ModelConfig, Recipe, TrainingConfig
from fmnist.run.folder import RunDir
from fmnist.search import job as search
from fmnist.signals import Stop
from fmnist.training.job import train
from fmnist.training.trainer import Trainer

RECIPE = Recipe(
    name="small",
    data=DataConfig(train_limit=500),
    model=ModelConfig(hidden=(16,)),
    training=TrainingConfig(epochs=3, batch_size=128),
)
GIVEN = dataclasses.replace(ONE, free_precision=False)
HALF = dataclasses.replace(GIVEN, precision="mixed_bfloat16")


def one_epoch(run: RunDir, recipe: Recipe, data_dir: Path, devices: Devices) -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Interrupted):
        train(run, recipe, 0, data_dir, lambda: devices, stop)


def test_a_training_keeps_the_precision_in_which_it_began(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = RunDir(tmp_path / "run")
    one_epoch(run, RECIPE, data_dir, HALF)
    with pytest.raises(BadInput, match="began in mixed_bfloat16: go on with --precision mixed_bfloat16, or remove"):
        train(run, RECIPE, 0, data_dir, lambda: GIVEN, Stop())
    one_epoch(run, RECIPE, data_dir, ONE)
    assert "going on after epoch 1" in caplog.text
    record = run.jobs()["train"]
    assert "mixed_bfloat16" in record["devices"]
    assert "went_on_from" not in record


def test_a_trial_keeps_the_precision_in_which_it_began(tmp_path: Path, data_dir: Path) -> None:
    """As the child of one that another machine has trained, in a search on several kinds of them."""
    small = dataset.load_train(data_dir, RECIPE.data)

    def fit(devices: Devices, epochs: int) -> Mapping[str, Sequence[float]]:
        training = dataclasses.replace(RECIPE.training, epochs=epochs)
        path = tmp_path / "trial.npz"
        return Trainer(small, devices).fit(RECIPE.model, training, seed=0, stop=Stop(), checkpoint_path=path).history

    whole = fit(HALF, 3)
    (tmp_path / "trial.npz").unlink()
    began = fit(HALF, 1)
    assert fit(ONE, 3) == whole
    assert fit(GIVEN, 3)["loss"][0] != began["loss"][0]


def test_workers_may_divide_the_processors_unevenly(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three processors between two workers are no news of any of them."""
    run, loaded = RunDir(tmp_path / "run"), dataset.load_train(data_dir, RECIPE.data)
    run.claim(RECIPE, 0)
    for threads in ("1", "2"):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", threads)
        search._trials(run, RECIPE, 0, loaded, ONE, Stop(), joined=True)
    assert caplog.messages == []


def test_a_training_of_another_configuration_leaves_nothing_to_this_one(tmp_path: Path, data_dir: Path) -> None:
    """As when the search has found a better one meanwhile."""
    run = RunDir(tmp_path / "run")
    space = {"training.learning_rate": {"min": 1e-4, "max": 1e-2}}
    recipe = config.replace(RECIPE, {"search": {"space": space, "trials": 2}})

    def best(learning_rate: float) -> None:
        values = {"training.learning_rate": learning_rate}
        files.write_json(run.best, {"trial": "0", "objective": "val_accuracy", "score": 0.5, "values": values})

    run.claim(recipe, 0)
    best(1e-3)
    one_epoch(run, recipe, data_dir, TWO)
    (run.tensorboard / "final" / "earlier").touch()
    best(2e-3)
    one_epoch(run, recipe, data_dir, ONE)
    assert "went_on_from" not in run.jobs()["train"]
    assert not (run.tensorboard / "final" / "earlier").exists()
    assert (run.tensorboard / "final").exists()


def test_a_link_that_would_refuse_the_model_is_refused_before_the_training(tmp_path: Path, data_dir: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE, 0)
    (tmp_path / "elsewhere").touch()
    run.model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        train(run, RECIPE, 0, data_dir, lambda: ONE, Stop())
    assert not (run.checkpoint / "train.npz").exists()
