"""Damaged files of a run, at random: each is read or refused in one line, and no result changes."""

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damaging
import numpy as np
import pytest
import tensorflow as tf
from damaging import damaged, outcome
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from images import images
from processes import contents
from searching import table

from fmnist import arrays, devices
from fmnist.data import dataset
from fmnist.errors import BadInput, Interrupted
from fmnist.recipe.schema import EarlyStoppingConfig, ModelConfig, TrainingConfig
from fmnist.report import results
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials
from fmnist.signals import Stop
from fmnist.training.trainer import Trainer

Damage = Callable[[Path, random.Random], None]
DAMAGES = {"types": damaging.retype_file, "bytes": damaging.break_bytes}
CHANCE = st.randoms(use_true_random=False)


def bounded(examples: int) -> Callable[[Any], Any]:
    """So many cases, the same ones each time."""
    limits = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    return lambda test: seed(0)(limits(test))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return damaging.make(tmp_path_factory.mktemp("damaged"))


def fuzz_readers(run: RunDir, damage: Damage, examples: int, name: str) -> Counter[str]:
    readers = damaging.readers(run, run.path.parent / "page.html")
    assert {outcome(reader) for reader in readers.values()} == {"read"}
    files = sorted(path for path in run.path.rglob("*") if path.is_file() and path != run.used_up)
    files = [path for path in files if damage is damaging.break_bytes or path.suffix in (".json", ".csv")]
    counts: Counter[str] = Counter()

    @bounded(examples)
    @given(path=st.sampled_from(files), chance=CHANCE)
    def fuzz(path: Path, chance: random.Random) -> None:
        with damaged(path, damage, chance):
            before = contents(run.path)
            for reader in readers.values():
                counts[outcome(reader)] += 1
            assert contents(run.path) == before

    fuzz()
    print(f"{name}, {examples} files: {dict(counts)}", file=sys.stderr)
    return counts


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_read_or_refused_in_one_line(run: RunDir, name: str) -> None:
    assert set(fuzz_readers(run, DAMAGES[name], 30, name)) == {"read", "refused"}


@pytest.mark.faults
@pytest.mark.parametrize(("name", "examples"), [("types", 50), ("bytes", 25)])
def test_many_damaged_files_are_read_or_refused_in_one_line(run: RunDir, name: str, examples: int, rounds: int) -> None:
    examples *= rounds
    counts = fuzz_readers(run, DAMAGES[name], examples, name)
    assert min(counts["read"], counts["refused"]) > examples / 2


def fuzz_search(tmp_path: Path, oracle: str, damage: Damage, examples: int, *, journal: bool) -> None:
    """With its journal a search comes to the same end, whatever is damaged; without it, to an end."""
    run = damaging.make_search(tmp_path / "run", oracle)
    shutil.copytree(run.path, tmp_path / "whole")
    damaging.resume(RunDir(tmp_path / "whole"), oracle)()
    names = ["search/journal"] if journal else sorted(
        str(path.relative_to(run.path)) for path in run.search.rglob("*.json") if path.name != "tuner0.json"
    )  # fmt: skip
    if not journal:
        (run.search / "journal").unlink()

    @bounded(examples)
    @given(name=st.sampled_from(names), chance=CHANCE)
    def fuzz(name: str, chance: random.Random) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run.path, copy)
        try:
            damage(copy / name, chance)
            assert outcome(damaging.resume(RunDir(copy), oracle)) == "read"
            assert len(table(copy)) == 9
            assert not journal or table(copy) == table(tmp_path / "whole")
        finally:
            shutil.rmtree(copy)

    fuzz()


def test_a_search_goes_on_from_damaged_state(tmp_path: Path) -> None:
    fuzz_search(tmp_path / "journal", "hyperband", damaging.break_bytes, 5, journal=True)
    fuzz_search(tmp_path / "none", "hyperband", damaging.retype_file, 5, journal=False)


@pytest.mark.faults
@pytest.mark.parametrize("oracle", ["random", "hyperband", "bayesian", "asha"])
def test_a_search_goes_on_from_damaged_state_of_many_kinds(tmp_path: Path, oracle: str, rounds: int) -> None:
    fuzz_search(tmp_path / "journal", oracle, damaging.break_bytes, 5 * rounds, journal=True)
    for name, damage in DAMAGES.items():
        fuzz_search(tmp_path / name, oracle, damage, 3 * rounds, journal=False)


class Training:
    """A training of a second, stopped after its first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        source = dataset.Source(path.parent, {}, False)
        self.trainer = Trainer(dataset.TrainData(images(200), images(50), source), devices.choose("cpu"))
        self.whole = self.weights(path.with_name("whole.npz"))
        stop = Stop()
        with pytest.raises(Interrupted):
            self.fit(path, stop, lambda *_: stop.request())

    def fit(self, path: Path, stop: Stop, progress: Any = None) -> Any:
        training = TrainingConfig(epochs=3, batch_size=100, early_stopping=EarlyStoppingConfig())
        model = ModelConfig(hidden=(8,))
        return self.trainer.fit(model, training, seed=0, stop=stop, checkpoint_path=path, progress=progress)

    def weights(self, path: Path) -> list[bytes]:
        return [weights.tobytes() for weights in self.fit(path, Stop()).model.get_weights()]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    with tf.device("CPU:0"):
        yield Training(tmp_path_factory.mktemp("training") / "train.npz")


def retype_state(path: Path, chance: random.Random) -> None:
    """By another program, which writes a whole archive."""
    found = arrays.load(path)
    (name,) = (name for name, value in found.items() if str(value).startswith("{"))
    arrays.save(path, found | {name: np.array(json.dumps(damaging.retype(json.loads(str(found[name])), chance)))})


@pytest.mark.parametrize(
    ("damage", "examples"),
    [
        pytest.param(damage, examples, marks=[pytest.mark.faults] * (examples > 10))
        for damage in (damaging.break_bytes, retype_state)
        for examples in (5, 100)
    ],
)
def test_a_damaged_checkpoint_costs_time_alone(training: Training, damage: Damage, examples: int) -> None:
    whole = training.path.read_bytes()

    @bounded(examples)
    @given(chance=CHANCE)
    def fuzz(chance: random.Random) -> None:
        with damaged(training.path, damage, chance):
            assert training.weights(training.path) == training.whole

    fuzz()
    assert training.path.read_bytes() == whole


def test_no_array_is_believed_before_its_checksum(tmp_path: Path) -> None:
    """The header of an array that was damaged promises what no memory holds, or is no Python at all."""
    path = tmp_path / "arrays.npz"
    arrays.save(path, {"one": np.zeros((3, 28, 28), np.uint8)})
    assert (arrays.load(path)["one"] == 0).all()
    whole = path.read_bytes()
    for wrong in (b"(3, 28, 28)", b"'shape': (3"):
        at = whole.index(wrong)
        path.write_bytes(whole[:at] + b"9" * len(wrong) + whole[at + len(wrong) :])
        with pytest.raises(ValueError, match="checksum"):
            arrays.load(path)


@pytest.mark.parametrize("names", [["labels"], ["mistakes", "mistake_images"]])
def test_predictions_of_other_images_are_no_predictions(run: RunDir, names: list[str]) -> None:
    before = run.predictions.read_bytes()
    found = arrays.load(run.predictions)
    arrays.save(run.predictions, found | {name: found[name].repeat(2, axis=0).astype(float) for name in names})
    try:
        with pytest.raises(BadInput, match="predictions.npz is damaged .*; remove it and run `fmnist eval` again"):
            results.read(run)
    finally:
        run.predictions.write_bytes(before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial,status,score\n0,COMPLETED,0.5,7\n", "longer than the first"),
        ("trial,status\n0,COMPLETED\n", "no score"),
        ("rubbish", "no trial, status, score"),
        ("", "no trial, status, score"),
        ("trial,status,score\n0,COMPLETED,high\n", "could not convert"),
        ("trial,status,score,seconds\n0,COMPLETED,0.5,inf\n", "took inf seconds"),
    ],
)
def test_a_damaged_table_of_trials(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=f"trials.csv is damaged .*{message}.*; remove it and run `fmnist tune` again"):
        read_trials(path)


@pytest.mark.parametrize("value", ["[" * 100_000, "1e999", "NaN", '{"a": ' * 100_000])
def test_json_that_no_reader_takes(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"recipe": {"name": "a"}, "seed": 0, "jobs": {}, "more": ' + value + "}")
    with pytest.raises(BadInput, match="config.json is damaged .*; put back a copy of it"):
        records.read(path, records.Config)
