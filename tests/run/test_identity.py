"""What is shown together is of one model, by the hashes that its files record."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from runs import make_run

from fmnist import files
from fmnist.errors import BadInput
from fmnist.evaluation import job as evaluate
from fmnist.network.build import build
from fmnist.recipe.schema import ModelConfig
from fmnist.report import results
from fmnist.run import identity
from fmnist.run.folder import RunDir
from fmnist.training import job as train
from fmnist.training.trainer import FitResult

TINY_RUN = ("--recipe", "tiny.toml")


@pytest.fixture
def finished_run(run: Path, tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / run)


def exchange(run: RunDir) -> None:
    build(ModelConfig(hidden=(8,)), seed=5).save(run.model)


def test_a_training_tells_which_model_it_made(finished_run: RunDir) -> None:
    sha256 = files.sha256(finished_run.model)
    assert files.read_json(finished_run.history)["model"] == {"sha256": sha256}
    assert files.read_json(finished_run.metrics)["model"]["sha256"] == sha256
    assert identity.of_model(finished_run) == sha256


def test_a_model_that_was_exchanged_is_noticed(finished_run: RunDir, tmp_path: Path, fmnist: Command) -> None:
    exchange(finished_run)
    for arguments in (["eval", "results/tiny-seed0"], ["report", "results/tiny-seed0"], ["train", *TINY_RUN]):
        (line,) = fmnist(*arguments, code=64).stderr.splitlines()
        assert "model.keras is not the model that was trained here, which history.json tells of" in line
    picture = tmp_path / "shoe.npy"
    np.save(picture, np.eye(28, dtype=np.uint8) * 255)
    done = fmnist("predict", picture, "--run", "results/tiny-seed0")
    assert "is not the model that was trained here" in done.stderr


def test_a_run_of_old_is_read_as_ever(finished_run: RunDir, data_dir: Path) -> None:
    # Trained by a version that told no hash.
    history = files.read_json(finished_run.history)
    del history["model"]
    files.write_json(finished_run.history, history)
    assert results.read(finished_run).seed == 0
    exchange(finished_run)
    with pytest.raises(BadInput, match=r"metrics\.json is not of the model that .* holds now; run `fmnist eval"):
        results.read(finished_run)
    evaluate.evaluate(finished_run, data_dir)
    assert results.read(finished_run).metrics["model"]["sha256"] == files.sha256(finished_run.model)


def test_figures_are_not_shown_beside_another_training_s_curves(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    files.write_json(run.history, files.read_json(run.history) | {"model": {"sha256": "ef" * 32}})
    with pytest.raises(BadInput, match=r"metrics\.json is not of the model"):
        results.read(run)


def test_a_training_that_replaces_a_model_takes_along_what_was_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is killed on the way."""
    run = make_run(tmp_path / "run", search=False)
    recipe, _ = run.recipe()
    figures = {name: [0.5] for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")}
    made = FitResult(build(ModelConfig(hidden=(4,))), figures, [1.0], 100)
    train.save(run, recipe, made)
    assert not run.metrics.exists()
    assert identity.of_model(run) == files.sha256(run.model)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        train.save(run, recipe, made)
    assert not run.trained


def test_a_reader_meets_a_training_that_ends(finished_run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the curves of the one before, then the model of this."""
    before = identity._trained

    def read_then_replace(run: RunDir) -> str | None:
        told = before(run)
        monkeypatch.setattr(identity, "_trained", before)
        exchange(run)
        history = json.loads(run.history.read_bytes())
        files.write_json(run.history, history | {"model": {"sha256": files.sha256(run.model)}})
        return told

    monkeypatch.setattr(identity, "_trained", read_then_replace)
    assert identity.of_model(finished_run) == files.sha256(finished_run.model)
