"""Pictures from elsewhere, as files, and what the model of a finished run says of them."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import RUN, Command
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.evaluation import predict
from fmnist.run.folder import RunDir


@pytest.fixture(scope="module")
def images(data_dir: Path) -> np.ndarray:
    return dataset.load_test(data_dir)[0].images


@pytest.fixture(scope="module")
def said(finished: Path) -> np.ndarray:
    """The classes that `eval` stored."""
    with np.load(finished / RUN / "predictions.npz") as arrays:
        return np.array(dataset._CLASSES)[arrays["predicted"]]


def likeliest(run: Path, *files: Path) -> list[str]:
    return [prediction.classes[0][0] for prediction in predict.predict(RunDir(run), files)]


def test_pictures_cut_out_of_the_test_set_give_what_eval_gave(
    finished: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray
) -> None:
    files = []
    for index in range(100):
        files.append(tmp_path / f"{index}.png")
        # Every second one as it would be photographed: dark on light, in colour.
        picture = Image.fromarray(images[index] if index % 2 == 0 else 255 - images[index])
        picture.convert("L" if index % 4 < 2 else "RGB").save(files[-1])
    assert likeliest(finished / RUN, *files) == said[:100].tolist()


@pytest.mark.parametrize("name", ["batch.idx", "batch.gz", "batch.npy"])
def test_batches_give_what_eval_gave(
    finished: Path, data_dir: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray, name: str
) -> None:
    file = tmp_path / name
    original = data_dir / "t10k-images-idx3-ubyte.gz"
    if name == "batch.npy":
        np.save(file, images)
    elif name == "batch.gz":
        shutil.copyfile(original, file)
    else:
        file.write_bytes(gzip.decompress(original.read_bytes()))
    found = list(predict.predict(RunDir(finished / RUN), [file]))
    assert [prediction.index for prediction in found] == list(range(10_000))
    assert (np.array([prediction.classes[0][0] for prediction in found]) == said).mean() >= 0.9999


@pytest.mark.parametrize("name", ["packed.idx", "plain.gz", "picture.gz"])
def test_a_file_is_what_it_holds_whatever_its_name(
    data_dir: Path, tmp_path: Path, images: np.ndarray, name: str
) -> None:
    packed = (data_dir / "t10k-images-idx3-ubyte.gz").read_bytes()
    Image.fromarray(images[0]).save(tmp_path / "picture.gz", "PNG")
    (tmp_path / "packed.idx").write_bytes(packed)
    (tmp_path / "plain.gz").write_bytes(gzip.decompress(packed))
    found, several = predict._read(tmp_path / name)
    assert (found == images[: len(found)]).all()
    assert several == (name != "picture.gz")


def test_the_same_picture_ten_times_as_large_and_off_the_centre(
    finished: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray
) -> None:
    files = []
    for index in range(100):
        picture = Image.new("RGB", (500, 400), "white")
        picture.paste(Image.fromarray(255 - images[index]).resize((280, 280), Image.Resampling.NEAREST), (190, 30))
        files.append(tmp_path / f"{index}.jpg")
        picture.save(files[-1], quality=95)
    assert np.mean(np.array(likeliest(finished / RUN, *files)) == said[:100]) > 0.85


@pytest.mark.parametrize("scale", [1, 3, 10])
def test_a_picture_is_trimmed_scaled_and_centred(scale: int) -> None:
    """A white bar of 14 x 28 on black becomes what it was, from any size, place and sign."""
    expected = np.zeros((28, 28), np.uint8)
    expected[:, 7:21] = 255
    grey = np.zeros((40 * scale, 60 * scale), np.uint8)
    grey[5 * scale : 33 * scale, 40 * scale : 54 * scale] = 255
    assert (predict.prepare(Image.fromarray(grey)) == expected).all()
    assert (predict.prepare(Image.fromarray(255 - grey)) == expected).all()
    # Cut out, on nothing at all.
    black = np.zeros((*grey.shape, 4), np.uint8)
    black[..., 3] = grey
    assert (predict.prepare(Image.fromarray(black)) == expected).all()


def test_a_picture_of_16_bits_is_that_of_8(tmp_path: Path, images: np.ndarray) -> None:
    for name, picture in (("8.png", images[0]), ("16.png", images[0].astype(np.uint16) * 257)):
        Image.fromarray(picture).save(tmp_path / name)
    shallow, deep = (predict._read(tmp_path / name)[0] for name in ("8.png", "16.png"))
    assert (deep == shallow).all()


def test_a_photograph_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    bar = np.zeros((60, 60), np.uint8)
    bar[10:50, 20:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(bar).save(tmp_path / "side.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "side.jpg") as picture:
        found = predict.prepare(picture)
    assert found.any(axis=0).sum() > 2 * found.any(axis=1).sum()


def write_text(path: Path) -> None:
    path.write_text("no picture at all")


def write_large(path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(path)


def write_truncated(path: Path) -> None:
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def write_thin(path: Path) -> None:
    grey = np.zeros((3, 5000), np.uint8)
    grey[1] = 255
    Image.fromarray(grey).save(path)


def write_long_text(path: Path) -> None:
    texts = PngInfo()
    texts.add_text("Comment", "a" * 3_000_000, zip=True)
    Image.new("L", (30, 30)).save(path, pnginfo=texts)


def write_long_header(path: Path) -> None:
    np.save(path, np.zeros(1, [(f"field{n}", "u1") for n in range(1000)]))


def write_damaged_header(path: Path) -> None:
    np.save(path, np.zeros((2, 28, 28), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"28)", b"28 "))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.txt", write_text, "a.txt is no image that can be read; give PNG, JPEG, IDX or NPY"),
        ("a.png", Path.touch, "a.png is empty"),
        ("none.png", None, "none.png: No such file or directory"),
        (".", None, "Is a directory"),
        ("one.png", lambda path: Image.new("L", (1, 1)).save(path), "all its pixels are alike (1 x 1)"),
        ("large.png", write_large, "large.png has 10000 x 10000 pixels, more than 50 million"),
        ("half.png", write_truncated, "half.png is damaged"),
        ("thin.png", write_thin, "what stands out from its corners is too thin (5000 x 3)"),
        ("text.png", write_long_text, "text.png cannot be used: Decompressed data too large"),
        ("a.gif", lambda path: Image.new("L", (30, 30)).save(path), "a.gif is no image"),
        ("float.npy", lambda path: np.save(path, np.zeros((2, 28, 28))), "float.npy holds float64 [2, 28, 28]; give"),
        ("wide.npy", lambda path: np.save(path, np.zeros((2, 32, 32), np.uint8)), "wide.npy holds uint8 [2, 32, 32]"),
        ("archive.npz", lambda path: np.savez(path, np.zeros((2, 28, 28), np.uint8)), "archive.npz is no image that"),
        ("long.npy", write_long_header, "long.npy cannot be read (Header info length"),
        ("pipe.png", os.mkfifo, "pipe.png: it is a pipe, not a file"),
        ("link.png", lambda path: path.symlink_to("nowhere"), "link.png: No such file or directory"),
        ("npy.gz", lambda path: path.write_bytes(gzip.compress(b"\x93NUMPY" + bytes(99))), "it is NPY, not IDX"),
        ("header.npy", write_damaged_header, "header.npy cannot be read"),
        ("object.npy", lambda path: np.save(path, np.array([{}])), "object.npy cannot be read"),
        ("labels.idx", lambda path: path.write_bytes(b"\0\0\x08\x01\0\0\0\x01\x05" + bytes(9)), "magic number"),
    ],
)
def test_a_file_that_is_no_image_is_named_in_one_line(
    finished: Path, tmp_path: Path, name: str, write: Callable[[Path], object] | None, message: str
) -> None:
    path = tmp_path / name
    if write:
        write(path)
    with pytest.raises(BadInput) as caught:
        list(predict.predict(RunDir(finished / RUN), [path]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_prints_three_classes_or_json_and_refuses_in_one_line(
    run: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray, fmnist: Command
) -> None:
    Image.fromarray(images[0]).save(tmp_path / "shoe.png")
    np.save(tmp_path / "two.npy", images[1:3])
    result = fmnist("predict", "shoe.png", "two.npy", "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["file"], line["index"]) for line in lines] == [("shoe.png", None), ("two.npy", 0), ("two.npy", 1)]
    assert [line["top"][0]["class"] for line in lines] == said[:3].tolist()
    probabilities = [one["probability"] for one in lines[0]["top"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)

    result = fmnist("predict", "shoe.png", "--run", run)
    assert result.stdout.startswith(f"shoe.png: {said[0]} ")
    assert result.stdout.count("%") == 3

    # Nothing is said of the good one before the bad one is refused.
    result = fmnist("predict", "shoe.png", "tiny.toml", "--run", run, code=64)
    assert result.stdout == ""
    assert result.stderr == "fmnist: tiny.toml is no image that can be read; give PNG, JPEG, IDX or NPY\n"
