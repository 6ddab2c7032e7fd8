"""Distillation: a model learns what finished ones say, never from one that has seen its validation images."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from fmnist import averaging, config, data
from fmnist.devices import choose
from fmnist.errors import BadInput, Interrupted
from fmnist.model import build
from fmnist.program import Program, resident
from fmnist.rundir import RunDir
from fmnist.schema import Recipe
from fmnist.signals import Stop
from fmnist.teachers import describe, load_all
from fmnist.train import train
from jobs.pipeline import Pipeline

SETTINGS = {
    "description": "",
    "data": {"train_limit": 2000},
    "model": {"hidden": [32]},
    "training": {"epochs": 2, "learning_rate": 0.01},
}


def recipe(name: str, **keys: object) -> Recipe:
    return config.replace(config.resolve(SETTINGS | {"name": name}, "test"), keys)


STUDENT = recipe("student", **{"training.distillation": 1.0, "training.epochs": 30})


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> list[RunDir]:
    runs = [RunDir(tmp_path_factory.mktemp("teachers") / f"teacher{seed}") for seed in range(2)]
    for seed, run in enumerate(runs):
        train(run, recipe("teacher"), seed, data_dir, partial(choose, "cpu"), Stop())
    return runs


def test_a_student_comes_to_say_what_its_teachers_say(teachers: list[RunDir], tmp_path: Path, data_dir: Path) -> None:
    run = RunDir(tmp_path / "student")
    train(run, STUDENT, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers)
    images = data.load_train(data_dir, STUDENT.data).train.images
    models = [keras.models.load_model(other.model) for other in [run, *teachers]]
    student, *said = (averaging.probabilities([model], images) for model in models)
    taught = averaging.probabilities(models[1:], images)
    distance = np.abs(student - taught).mean()
    assert distance < min(np.abs(other - taught).mean() for other in said)
    # Cross-entropy to soft targets cannot fall below their entropy.
    entropy = -np.mean(np.sum(taught * np.log(taught), axis=1))
    history = json.loads(run.history.read_text())
    assert entropy < history["history"]["loss"][-1] < entropy + 0.1
    assert [teacher["run"] for teacher in history["teachers"]] == ["teacher0", "teacher1"]
    assert {teacher["recipe"] for teacher in history["teachers"]} == {"teacher"}


def test_a_finished_student_is_left_alone_and_no_other_teachers_take_its_folder(
    teachers: list[RunDir], tmp_path: Path, data_dir: Path
) -> None:
    run = RunDir(tmp_path / "student")
    short = recipe("student", **{"training.distillation": 0.5, "training.epochs": 1})
    train(run, short, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers[:1])
    first = run.model.read_bytes()
    train(run, short, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers[:1])
    assert run.model.read_bytes() == first
    with pytest.raises(BadInput, match="holds a model that learned from other teachers"):
        train(run, short, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers)
    assert run.model.read_bytes() == first


def test_teachers_see_the_augmented_images_that_the_student_sees(data_dir: Path) -> None:
    """So its own copy has nothing to teach to a student."""
    student = config.replace(STUDENT, {"training.augment.shift": 3, "training.augment.flip": True})
    loaded = data.load_train(data_dir, student.data)
    training = dataclasses.replace(student.training, optimizer="sgd", learning_rate=1.0)
    teacher = build(student.model, seed=5)
    program = Program(student.model, training, choose("cpu"), [teacher])
    program.reset(student.model, training, teacher.get_weights(), seed=5)
    images, rows = resident(loaded.train, choose("cpu")), np.arange(len(loaded.train))
    program.train(images, rows, training.batch_size, np.random.default_rng(0))
    for learned, begun in zip(program.model.get_weights(), teacher.get_weights(), strict=True):
        np.testing.assert_allclose(learned, begun, atol=1e-5)


def test_an_interrupted_student_goes_on_with_the_same_teachers_alone(
    teachers: list[RunDir], tmp_path: Path, data_dir: Path
) -> None:
    short = config.replace(STUDENT, {"training.epochs": 3})
    whole, resumed, other = (RunDir(tmp_path / name) for name in ("whole", "resumed", "other"))
    train(whole, short, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers)
    for run, second in ((resumed, teachers), (other, teachers[:1])):
        stop = Stop()
        stop.request()
        with pytest.raises(Interrupted):
            train(run, short, 0, data_dir, partial(choose, "cpu"), stop, teachers=teachers)
        train(run, short, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=second)
    losses = [json.loads(run.history.read_text())["history"]["loss"] for run in (whole, resumed, other)]
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[2][0]


def test_teachers_of_other_data_are_refused(teachers: list[RunDir], data_dir: Path) -> None:
    loaded = data.load_train(data_dir, STUDENT.data)
    source = dataclasses.replace(loaded.source, sha256=dict.fromkeys(loaded.source.sha256, "00"))
    with pytest.raises(BadInput, match="is not the file that `train` of the run in .*teacher0 read"):
        load_all(teachers, source)


@pytest.mark.parametrize(
    ("student", "count", "message"),
    [
        (STUDENT, 0, "name its teachers with --teacher"),
        (recipe("student"), 1, "has no training.distillation: set it"),
        (config.replace(STUDENT, {"data.split_seed": 1}), 1, "was trained on validation images of this run"),
        (config.replace(STUDENT, {"data.split": "regularized-mlp"}), 1, "name one of the same split"),
        (STUDENT, 4, "is named twice"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_a_folder_is_made(
    teachers: list[RunDir], tmp_path: Path, data_dir: Path, student: Recipe, count: int, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        train(
            RunDir(tmp_path / "student"),
            student,
            0,
            data_dir,
            partial(choose, "cpu"),
            Stop(),
            teachers=(2 * teachers)[:count],
        )
    assert not (tmp_path / "student").exists()


def test_a_student_on_all_images_may_learn_from_any_but_may_teach_none_that_holds_some_back(
    teachers: list[RunDir], tmp_path: Path, data_dir: Path
) -> None:
    student = config.replace(STUDENT, {"data.split": "none", "training.epochs": 1})
    run = RunDir(tmp_path / "student")
    train(run, student, 0, data_dir, partial(choose, "cpu"), Stop(), teachers=teachers)
    with pytest.raises(BadInput, match=r"student was trained on validation images .*data.split is none, not tuned-mlp"):
        describe([run], STUDENT)


def test_a_teacher_without_a_model_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "begun")
    run.claim(recipe("teacher"), 0)
    with pytest.raises(BadInput, match="begun has no finished model"):
        describe([run], STUDENT)


def test_a_student_is_not_submitted_where_it_would_have_no_teachers(tmp_path: Path) -> None:
    pipeline = Pipeline(RunDir(tmp_path / "student"), "quick-mlp", 0, ["training.distillation=0.9"])
    with pytest.raises(BadInput, match="a submitted training has no teachers"), pipeline.prepared():
        pass
    assert not (tmp_path / "student").exists()


def test_a_search_has_no_teachers() -> None:
    space = {"space": {"training.learning_rate": {"min": 1e-4, "max": 1e-2}}}
    with pytest.raises(BadInput, match="a search has no teachers"):
        config.resolve(config.to_dict(STUDENT) | {"search": space}, "test")
