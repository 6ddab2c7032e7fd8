"""Seeds: each that is accepted works wherever one goes, up to the largest; a larger one is refused at once."""

from pathlib import Path

import numpy as np
import pytest
import typer
from images import images
from searching import SMALL_SPACE, Runner, recipe, search

from fmnist.cli.app import app
from fmnist.data import dataset
from fmnist.devices import choose
from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED, DataConfig, ModelConfig, TrainingConfig
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.study import baselines as references
from fmnist.training.trainer import Trainer
from jobs.pipeline import Pipeline

LARGEST = 2**32 - 1


@pytest.mark.parametrize("seed", [LARGEST - 1, LARGEST])
@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband"])
def test_every_oracle_searches(tmp_path: Path, oracle: str, seed: int) -> None:
    of = recipe(oracle, SMALL_SPACE, trials=7)
    assert len(search(tmp_path, of, Runner(), seed=seed).rows()) == 7


def test_a_training_and_its_retries(tmp_path: Path, data_dir: Path) -> None:
    loaded = dataset.load_train(data_dir, DataConfig(train_limit=1000, split_seed=LARGEST))
    trainer = Trainer(loaded, choose("cpu"))
    for attempt in (0, 3):
        result = trainer.fit(
            ModelConfig(hidden=(4,), dropout=0.1, receptive_field=2),
            TrainingConfig(epochs=1),
            seed=LARGEST + 1_000_000 * attempt,
            stop=Stop(),
            checkpoint_path=tmp_path / f"{attempt}.npz",
        )
        assert np.isfinite(result.history["loss"]).all()


@pytest.mark.parametrize("name", references.NAMES)
def test_the_references(name: str) -> None:
    short = config.replace(references.recipe(name, DataConfig()), {"training.epochs": 300})
    assert references.fit(short, LARGEST, images(200), Stop()).n_iter_


def test_a_larger_one_is_refused(tmp_path: Path) -> None:
    assert MOST_SEED == LARGEST
    with pytest.raises(typer.TyperException, match="less than or equal to 4294967295"):
        app(["train", "--seed", str(LARGEST + 1)], standalone_mode=False)
    with pytest.raises(BadInput, match="data.split_seed: .* less than or equal to 4294967295"):
        config.load("smoke", [f"data.split_seed={LARGEST + 1}"])
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", LARGEST + 1)
    with pytest.raises(BadInput, match="SEED from 0 to 4294967295"), pipeline.prepared():
        pass
