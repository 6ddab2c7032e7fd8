"""What is larger than any machine, or longer than any reader has patience for, is refused in one line and at once."""

import gzip
import os
import random
import re
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from damaging import break_bytes, damaged, outcome
from PIL import Image, PngImagePlugin

from fmnist import memory
from fmnist.data import idx
from fmnist.errors import BadInput
from fmnist.evaluation import predict
from fmnist.recipe import config
from fmnist.recipe.schema import ModelConfig, TrainingConfig, nearest
from fmnist.training import footprint

IMAGES = 54_000


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Whatever asks for gigabytes fails here, not on the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(load: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load()
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("[" + ".".join("a" * 10_000) + "]", "unknown key 'a'"),
        ("a" * 200_000 + " = 1", "unknown key 'aaa"),
        ("description = '" + "a" * 500_000 + "'", "description: .*at most 1000 characters, not 'aaa"),
        ("training.epochs = " + "9" * 5000, "not valid TOML|too large"),
        ("training.epochs = 100000000", "training.epochs: 100000000 is too large; at most 10,000,000"),
        ("training.batch_size = 100000000", "too large"),
        ("model.hidden = [" + "8," * 101 + "]", "model.hidden"),
        ("model.hidden = [10000000]", "10000000 is too large; at most 1,000,000"),
        ("search.trials = 1000000\nsearch.space = {}", "search.trials: 1000000 is too large; at most 100,000"),
        (
            "[search.space]\n'model.hidden' = { layers = [1, 1000000000], units = [8] }",
            "layers.*1000000000 is too large; at most 100",
        ),
        ("[search.space]\n'" + "a" * 200_000 + "' = { values = [1] }", "unknown key 'aaa"),
        ("# " + "a" * 2**20, "it is larger than"),
    ],
    ids=range(13),
)
def test_a_recipe_without_measure(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text if "description" in text else f'description = "own"\n{text}')
    refused(lambda: config.load(str(path)), message)


@pytest.mark.parametrize(
    "override", ["a" * 100_000 + "=1", "a" * 100_000, "training.epochs=" + "[" * 100_000, "a." * 50_000 + "b=1"]
)
def test_an_override_without_measure(override: str) -> None:
    refused(lambda: config.load("smoke", [override]), "")


def test_no_long_word_is_compared() -> None:
    assert nearest("training.epoch", ["training.epochs"]) == "; did you mean 'training.epochs'?"
    assert nearest("a" * 10**6, ["a" * 10**6]) == ""


@pytest.mark.parametrize(
    ("hidden", "batch_size", "images", "replicas"),
    [((10**6, 10**6), 128, IMAGES, 1), ((10**6,) * 100, 128, IMAGES, 1), ((10**6,) * 2, 10**6, 10**6, 8)],
)
def test_a_training_that_surely_does_not_fit(
    hidden: tuple[int, ...], batch_size: int, images: int, replicas: int
) -> None:
    training = TrainingConfig(batch_size=batch_size)
    message = r"model.hidden 1000000-1.* needs [\d,.]+ GiB of memory at least.*; choose fewer units"
    refused(lambda: footprint.check(ModelConfig(hidden=hidden), training, images, replicas), message)


def test_every_recipe_fits_where_there_is_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "available", lambda: 2**30)
    for name in config.names():
        recipe = config.load(name)
        footprint.check(recipe.model, recipe.training, 60_000)


def test_memory_is_what_the_machine_or_its_group_leaves() -> None:
    assert 2**26 < memory.available() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 2**40


def write_promise(path: Path, compress: bool = False) -> None:
    """29 GiB by its header, and by its size: of nothing."""
    header = b"\0\0\x08\x03" + struct.pack(">3I", 40_000_000, 28, 28)
    if compress:
        # Zeros, a member at a time: what is compressed promises as much.
        path.write_bytes(gzip.compress(header) + gzip.compress(bytes(2**24)) * 1800)
        return
    path.write_bytes(header)
    os.truncate(path, len(header) + 40_000_000 * 784)


@pytest.mark.parametrize("compress", [False, True])
def test_an_idx_file_that_promises_29_gib(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    write_promise(path, compress)
    refused(lambda: idx.read(path, (28, 28)), "train-images-idx3-ubyte: its header counts 40,?000,?000 items")
    refused(lambda: predict._read(path), "its header counts")


def test_an_npy_file_that_promises_29_gib(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((1, 28, 28), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(1, 28, 28), }       ", b"(40000000, 28, 28), }"))
    refused(lambda: predict._read(path), "images.npy cannot be read")
    os.truncate(path, 128 + 40_000_000 * 784)
    refused(lambda: predict._read(path), "images.npy has 31,360,000,128 bytes; give at most 5,000,000 images")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), RecursionError("deep"), OSError("broken data stream"), IndexError()]
)
def test_whatever_pillow_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    path = tmp_path / "shoe.png"
    Image.effect_noise((40, 40), 50).save(path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    refused(lambda: predict._read(path), r"shoe.png is damaged \(.+\)")


@pytest.mark.faults
@pytest.mark.parametrize(("name", "mode"), [("a.png", "P"), ("a.jpg", "L")])
def test_damaged_pictures(tmp_path: Path, name: str, mode: str) -> None:
    path, chance = tmp_path / name, random.Random(0)
    Image.effect_noise((40, 40), 50).convert(mode).save(path)

    def read() -> None:
        assert predict._read(path).images.shape == (1, 28, 28)

    for _ in range(500):
        with damaged(path, break_bytes, chance):
            outcome(read)
