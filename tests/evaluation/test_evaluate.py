"""`eval` on real files: a model, its average over views, and several models together."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Command
from processes import contents, python
from test_averaging import by_hand

from fmnist import files
from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.evaluation import job as evaluate
from fmnist.evaluation import metrics as figures
from fmnist.network import inference
from fmnist.network.build import build
from fmnist.recipe import config
from fmnist.recipe.schema import DataConfig, ModelConfig
from fmnist.run.folder import RunDir

Judge = Callable[[], dict[str, object]]


def start_run(path: Path, **sections: object) -> RunDir:
    run = RunDir(path)
    run.claim(config.resolve({"name": "small", "description": "A test.", **sections}, "test"), seed=3)
    return run


@pytest.fixture
def other_run(tmp_path: Path, other_data: Path) -> RunDir:
    """A run that was trained, however badly, on `other_data`."""
    return trained(tmp_path / "run", other_data)


def trained(path: Path, data_dir: Path, model_seed: int = 0, **sections: object) -> RunDir:
    run = start_run(path, **sections)
    build(ModelConfig(hidden=(4,)), seed=model_seed).save(run.model)
    run.record("train", devices="1 CPU", data=dataset.load_train(data_dir, DataConfig()).source.sha256)
    return run


def test_evaluate_on_the_real_data(tmp_path: Path, data_dir: Path) -> None:
    run = start_run(tmp_path / "run", data={"train_limit": 1000})
    network = build(ModelConfig(hidden=(16,)), seed=1)
    network.save(run.model)
    run.record("train", devices="1 CPU", data=dataset.load_train(data_dir, DataConfig()).source.sha256)

    metrics = evaluate.evaluate(run, data_dir)

    assert files.read_json(run.metrics) == metrics
    assert metrics["recipe"] == "small"
    assert metrics["seed"] == 3
    assert metrics["data"]["is_fashion_mnist"]
    assert metrics["data"]["classes"][9] == "Ankle boot"
    assert metrics["data"]["sha256"].keys() == dataset.SHA256.keys()
    assert metrics["model"]["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert [metrics[split]["images"] for split in ("train", "validation", "test")] == [1000, 6000, 10_000]
    assert metrics["test"]["per_class"][0]["support"] == 1000
    assert files.read_json(run.config)["jobs"]["eval"]["data"] == metrics["data"]["sha256"]
    assert list((run.tensorboard / "final" / "test").iterdir())
    assert metrics["images_per_second"] == pytest.approx(17_000 / metrics["seconds"])

    # The same network in NumPy.
    images, _ = dataset.load_test(data_dir)
    predicted = by_hand(network.get_weights(), images.images).argmax(axis=1)
    assert metrics["test"]["accuracy"] == pytest.approx((predicted == images.labels).mean(), abs=2e-4)

    with np.load(run.predictions) as arrays:
        assert (arrays["labels"] == images.labels).all()
        assert (arrays["predicted"] == predicted).mean() > 0.999
        assert (arrays["predicted"] == images.labels).mean() == pytest.approx(metrics["test"]["accuracy"])
        mistakes = arrays["mistakes"]
        assert (arrays["predicted"][mistakes] != images.labels[mistakes]).all()
        assert (np.diff(arrays["confidence"][mistakes]) <= 0).all()
        wrong = arrays["predicted"] != images.labels
        assert arrays["confidence"][mistakes[0]] == arrays["confidence"][wrong].max()
        assert (arrays["mistake_images"] == images.images[mistakes]).all()


def test_a_run_without_its_predictions_is_judged_again(other_run: RunDir, other_data: Path) -> None:
    evaluate.evaluate(other_run, other_data)
    other_run.predictions.unlink()
    evaluate.evaluate(other_run, other_data)
    assert other_run.predictions.exists()


def test_another_data_set_is_named_as_such(other_run: RunDir, other_data: Path) -> None:
    metrics = evaluate.evaluate(other_run, other_data)
    assert not metrics["data"]["is_fashion_mnist"]
    assert metrics["data"]["classes"] == list("0123456789")
    assert metrics["test"]["images"] == 50


def test_other_data_than_it_was_trained_on(other_run: RunDir, data_dir: Path) -> None:
    with pytest.raises(BadInput, match="train-images-idx3-ubyte is not the file that `train` of the run"):
        evaluate.evaluate(other_run, data_dir)
    assert not other_run.metrics.exists()


def test_no_model(tmp_path: Path, other_data: Path) -> None:
    with pytest.raises(BadInput, match=r"model\.keras is missing; run `fmnist train`"):
        evaluate.evaluate(start_run(tmp_path / "run"), other_data)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_model_loses_no_earlier_result(other_run: RunDir, other_data: Path, keep: float) -> None:
    other_run.metrics.write_text("earlier")
    whole = other_run.model.read_bytes()
    other_run.model.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(BadInput, match=r"model\.keras is truncated.*run `fmnist train` again") as caught:
        evaluate.evaluate(other_run, other_data)
    assert "\n" not in str(caught.value)
    assert other_run.metrics.read_text() == "earlier"


def test_flipped_bytes_in_the_weights(other_run: RunDir, other_data: Path) -> None:
    whole = bytearray(other_run.model.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(byte ^ 0xFF for byte in whole[middle : middle + 64])
    other_run.model.write_bytes(whole)
    with pytest.raises(BadInput, match=r"model\.keras cannot be loaded"):
        evaluate.evaluate(other_run, other_data)


def test_model_of_another_shape(other_run: RunDir, other_data: Path) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(other_run.model)
    with pytest.raises(BadInput, match="another kind of model"):
        evaluate.evaluate(other_run, other_data)


def test_outputs_that_are_not_finite(other_run: RunDir, other_data: Path) -> None:
    network = build(ModelConfig(hidden=()))
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    network.save(other_run.model)
    with pytest.raises(BadInput, match="not finite"):
        evaluate.evaluate(other_run, other_data)
    assert not other_run.metrics.exists()


def test_averaged_figures_are_kept_apart(other_run: RunDir, other_data: Path) -> None:
    plain = evaluate.evaluate(other_run, other_data)
    before = contents(other_run.path)

    averaged = evaluate.evaluate_averaged(other_run, other_data)

    after = contents(other_run.path)
    assert after.keys() - before.keys() == {other_run.averaged_metrics.name}
    assert {name for name in before if before[name] != after[name]} == {other_run.config.name}
    assert files.read_json(other_run.averaged_metrics) == averaged
    assert averaged.keys() == plain.keys() - {"train"} | {"views"}
    assert {key: averaged[key] for key in ("recipe", "seed", "model", "data")} == {
        key: plain[key] for key in ("recipe", "seed", "model", "data")
    }
    assert averaged["views"] == 10
    assert averaged["images_per_second"] == pytest.approx(6050 / averaged["seconds"])
    images, _ = dataset.load_test(other_data)
    probabilities = averaging.probabilities([inference.load(other_run.model)], images.images, tta=True)
    assert averaged["test"] == figures.figures(images.labels, probabilities, list("0123456789"))
    assert averaged["test"]["loss"] != plain["test"]["loss"]
    assert averaged["validation"]["loss"] != plain["validation"]["loss"]
    assert evaluate.sentence(plain).startswith(f"test accuracy {plain['test']['accuracy']:.4f} (95% interval 0.")
    assert evaluate.sentence(averaged).startswith("test accuracy with test-time averaging over 10 views 0.")


def test_averaged_figures_do_without_the_plain_ones(other_run: RunDir, other_data: Path) -> None:
    evaluate.evaluate_averaged(other_run, other_data)
    assert not other_run.metrics.exists()
    assert not other_run.predictions.exists()


def test_what_was_averaged_is_averaged_again_for_another_model_alone(tmp_path: Path, other_data: Path) -> None:
    runs = [trained(tmp_path / f"run{seed}", other_data, seed) for seed in (0, 1)]
    paths: dict[Path, Judge] = {
        runs[0].averaged_metrics: lambda: evaluate.evaluate_averaged(runs[0], other_data),
        tmp_path / "ensemble.json": lambda: evaluate.evaluate_ensemble(runs, other_data),
    }
    for path, judge in paths.items():
        first = judge()
        file = path.stat().st_ino
        assert judge() == first
        assert path.stat().st_ino == file
    build(ModelConfig(hidden=(4,)), seed=7).save(runs[0].model)
    for path, judge in paths.items():
        before = path.read_bytes()
        judge()
        assert path.read_bytes() != before


@pytest.mark.parametrize("tta", [False, True])
def test_two_copies_of_a_model_are_no_better_than_one(other_run: RunDir, other_data: Path, tta: bool) -> None:
    copy = RunDir(other_run.path.with_name("copy"))
    shutil.copytree(other_run.path, copy.path)
    single = (evaluate.evaluate_averaged if tta else evaluate.evaluate)(other_run, other_data)
    before = contents(other_run.path), contents(copy.path)

    together = evaluate.evaluate_ensemble([other_run, copy], other_data, tta=tta)

    assert together["test"]["confusion_matrix"] == single["test"]["confusion_matrix"]
    for split in ("validation", "test"):
        assert together[split]["loss"] == pytest.approx(single[split]["loss"])
    assert together["parameters"] == 2 * single["model"]["parameters"]
    assert together["views"] == (10 if tta else 1)
    assert [member["run"] for member in together["members"]] == ["run", "copy"]
    assert [member["model"] for member in together["members"]] == 2 * [single["model"]]
    assert (contents(other_run.path), contents(copy.path)) == before
    written = other_run.path.with_name("ensemble-tta.json" if tta else "ensemble.json")
    assert files.read_json(written) == together


def test_different_models_together(tmp_path: Path, other_data: Path) -> None:
    runs = [trained(tmp_path / f"run{seed}", other_data, seed) for seed in (0, 1)]
    together = evaluate.evaluate_ensemble(runs, other_data, output=tmp_path / "here" / "both.json")
    assert files.read_json(tmp_path / "here" / "both.json") == together
    images, _ = dataset.load_test(other_data)
    each = [averaging.probabilities([inference.load(run.model)], images.images) for run in runs]
    assert together["test"]["loss"] == pytest.approx(
        -np.log(((each[0] + each[1]) / 2)[np.arange(50), images.labels]).mean()
    )


def test_ensembles_that_are_refused(tmp_path: Path, other_data: Path, data_dir: Path) -> None:
    run, same = trained(tmp_path / "run", other_data), RunDir(tmp_path / "away" / ".." / "run")
    (tmp_path / "away").mkdir()
    elsewhere = trained(tmp_path / "elsewhere", data_dir)
    seeded = trained(tmp_path / "seeded", other_data, data={"split_seed": 1})
    split = trained(tmp_path / "split", other_data, data={"split": "regularized-mlp"})
    for runs, reason in {
        (run,): "an ensemble needs two runs or more",
        (run, seeded, same): r"away/\.\./run is named twice",
        (run, seeded): r"seeded and .*run do not hold back the same .*\(data.split tuned-mlp, split_seed 1 and ",
        (run, split): r"data.split regularized-mlp, split_seed 0 and tuned-mlp",
        (run, elsewhere): "images-idx3-ubyte is not the file that `train` of the run in .*elsewhere read",
        (run, start_run(tmp_path / "untrained")): r"untrained/model\.keras is missing",
    }.items():
        with pytest.raises(BadInput, match=reason) as caught:
            evaluate.evaluate_ensemble(runs, other_data)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.json"))


def test_an_ensemble_does_not_replace_another_file(tmp_path: Path, other_data: Path) -> None:
    runs = [trained(tmp_path / f"run{seed}", other_data, seed) for seed in (0, 1)]
    before = runs[0].config.read_bytes()
    with pytest.raises(BadInput, match=r"config\.json is damaged \("):
        evaluate.evaluate_ensemble(runs, other_data, output=runs[0].config)
    assert runs[0].config.read_bytes() == before


def test_the_command_line_says_what_was_averaged(tmp_path: Path, other_data: Path, fmnist: Command) -> None:
    for seed in (0, 1):
        trained(tmp_path / f"run{seed}", other_data, seed)
    result = fmnist("eval", "run0", "run1", "--data", other_data, "--ensemble", "--tta")
    said = r"test accuracy of an ensemble of 2 with test-time averaging over 10 views 0\.\d{4} \(95% interval .*\)\n"
    assert re.fullmatch(said, result.stdout)
    assert "ensemble-tta.json" in result.stderr


def test_averages_of_a_model_that_never_saw_the_views_are_warned_of_and_stand_beside_the_plain_figure(
    tmp_path: Path, other_data: Path, fmnist: Command
) -> None:
    run = trained(tmp_path / "run", other_data)
    result = fmnist("eval", "run", "--data", other_data, "--tta")
    assert result.returncode == 0, result.stderr
    assert "run was trained without flips, or without shifts and deformations; --tta is likely" in result.stderr
    plain, averaged = files.read_json(run.metrics), files.read_json(run.averaged_metrics)
    assert result.stdout == f"{evaluate.sentence(plain)}\n{evaluate.sentence(averaged)}\n"


@pytest.mark.parametrize(
    ("augment", "helps"),
    [
        ({}, False),
        ({"flip": True}, False),
        ({"shift": 1, "deform": 1.0}, False),
        ({"flip": True, "shift": 1, "until": 0.5}, True),
        ({"flip": True, "deform": 0.5}, True),
    ],
)
def test_averages_help_whoever_was_trained_on_both_kinds_of_views(augment: dict[str, Any], helps: bool) -> None:
    settings = {"name": "x", "description": "", "training": {"augment": augment}}
    assert averaging.helps(config.resolve(settings, "test").training) == helps


def replace_model(run: RunDir, seed: int) -> None:
    with files.atomic_write(run.model) as file:
        build(ModelConfig(hidden=(4,)), seed=seed).save(file.name)


@pytest.mark.parametrize("judge", [evaluate.evaluate, evaluate.evaluate_averaged])
def test_figures_of_a_model_that_was_replaced_meanwhile_are_not_written(
    other_run: RunDir, other_data: Path, monkeypatch: pytest.MonkeyPatch, judge: Callable[..., dict[str, Any]]
) -> None:
    """Such as by a training that ended before the `eval` did."""
    ask = averaging.probabilities

    def ask_slowly(*args: Any, **kwargs: Any) -> np.ndarray:
        replace_model(other_run, seed=1)
        return ask(*args, **kwargs)

    monkeypatch.setattr(averaging, "probabilities", ask_slowly)
    with pytest.raises(BadInput, match=r"model\.keras was replaced meanwhile, so nothing is written; run the same"):
        judge(other_run, other_data)
    for path in (other_run.metrics, other_run.averaged_metrics, other_run.predictions):
        assert not path.exists()
    monkeypatch.undo()
    assert judge(other_run, other_data)["model"]["sha256"] == files.sha256(other_run.model)


def test_a_model_that_is_replaced_while_it_is_read_is_not_taken_for_the_one_before(
    other_run: RunDir, other_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = inference.load

    def load_late(path: Path) -> keras.Model:
        replace_model(other_run, seed=1)
        return load(path)

    monkeypatch.setattr(inference, "load", load_late)
    with pytest.raises(BadInput, match="was replaced meanwhile"):
        evaluate.evaluate(other_run, other_data)


def test_a_gpu_that_fails_is_no_bug(tmp_path: Path, other_run: RunDir, other_data: Path) -> None:
    """With an error that stands for a GPU's, as TensorFlow raises it."""
    program = """if True:
        import sys
        import tensorflow as tf
        from fmnist.cli import app
        from fmnist.evaluation import averaging
        def fail(*_, **__):
            raise tf.errors.InternalError(None, None, "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
        averaging.probabilities = fail
        app.on_gpu = lambda: True
        app.main()
    """
    ended = python(program, "eval", other_run.path, "--data", other_data)
    assert ended.returncode == 69
    assert ended.stderr.splitlines()[-1].startswith("fmnist: the GPU failed: InternalError: CUDA_ERROR_ILLEGAL_ADDRESS")
    assert not other_run.metrics.exists()
