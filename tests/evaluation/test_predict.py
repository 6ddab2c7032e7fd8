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

from benchmarks import drawing
from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.evaluation import predict
from fmnist.evaluation.preparation import prepare
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
    found = predict._read(tmp_path / name)
    assert (found.images == images[: len(found.images)]).all()
    assert (found.original is None) == (name != "picture.gz")


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
    """A white bar of 14 x 28 on black becomes what it was, from any size, place and sign; its corners are rounded."""
    expected = np.zeros((28, 28), np.uint8)
    expected[:, 7:21] = 255
    grey = np.zeros((40 * scale, 60 * scale), np.uint8)
    grey[5 * scale : 33 * scale, 40 * scale : 54 * scale] = 255
    # Cut out, on nothing at all.
    black = np.zeros((*grey.shape, 4), np.uint8)
    black[..., 3] = grey
    for pixels in (grey, 255 - grey, black):
        difference = prepare(Image.fromarray(pixels)).image - expected.astype(float)
        assert np.abs(difference).mean() < 3


def test_a_belt_keeps_a_row_and_a_speck_is_nothing() -> None:
    grey = np.zeros((280, 280), np.uint8)
    grey[100:104, 20:260] = 255
    assert (prepare(Image.fromarray(grey)).image > 100).any(axis=1).sum() == 1
    grey = np.zeros((60, 60), np.uint8)
    grey[30, 30] = 255
    with pytest.raises(ValueError, match="nothing in it stands out"):
        prepare(Image.fromarray(grey))


def test_a_picture_of_16_bits_is_that_of_8(tmp_path: Path, images: np.ndarray) -> None:
    for name, picture in (("8.png", images[0]), ("16.png", images[0].astype(np.uint16) * 257)):
        Image.fromarray(picture).save(tmp_path / name)
    shallow, deep = (predict._read(tmp_path / name).images for name in ("8.png", "16.png"))
    assert (deep == shallow).all()


def test_a_photograph_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    bar = np.zeros((60, 60), np.uint8)
    bar[10:50, 20:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(bar).save(tmp_path / "side.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "side.jpg") as picture:
        found = prepare(picture).image
    assert found.any(axis=0).sum() > 2 * found.any(axis=1).sum()


def write_text(path: Path) -> None:
    path.write_text("no picture at all")


def write_large(path: Path) -> None:
    Image.new("1", (10_000, 10_001)).save(path)


def write_truncated(path: Path) -> None:
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def write_no_number(path: Path) -> None:
    Image.fromarray(np.full((30, 30), np.nan, np.float32)).save(path)


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
        ("a.txt", write_text, "a.txt is no image that can be read; give PNG, JPEG, WEBP, GIF, BMP, TIFF"),
        ("a.png", Path.touch, "a.png is empty"),
        ("none.png", None, "none.png: No such file or directory"),
        (".", None, "Is a directory"),
        ("one.png", lambda path: Image.new("L", (1, 1)).save(path), "one.png cannot be used: it has too few pixels"),
        ("large.png", write_large, "large.png has 10000 x 10001 pixels, more than 100 million"),
        ("half.png", write_truncated, "half.png is damaged"),
        ("thin.png", write_thin, "thin.png cannot be used: it has too few pixels, or is too thin"),
        ("text.png", write_long_text, "text.png cannot be used: Decompressed data too large"),
        ("even.gif", lambda path: Image.new("L", (30, 30)).save(path), "nothing in it stands out from its background"),
        ("flat.png", lambda path: Image.new("L", (28, 28), 17).save(path), "nothing in it stands out from"),
        ("nan.tiff", write_no_number, "nan.tiff cannot be used: not all of its pixels are finite numbers"),
        ("a.ppm", lambda path: Image.new("L", (32, 32)).save(path), "a.ppm is no image"),
        ("a.ico", lambda path: Image.new("L", (32, 32)).save(path), "a.ico is no image"),
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

    result = fmnist("predict", "tiny.toml", "--run", run, code=64)
    assert result.stdout == ""
    assert result.stderr.startswith("fmnist: tiny.toml is no image that can be read; give PNG, JPEG, ")
    assert result.stderr.count("\n") == 1


def test_one_bad_file_does_not_keep_the_others_from_being_classified(
    run: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray, fmnist: Command
) -> None:
    for index in range(2):
        Image.fromarray(images[index]).save(tmp_path / f"{index}.png")
    result = fmnist("predict", "0.png", "tiny.toml", "none.png", "1.png", "--run", run, code=64)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["0.png", "1.png"]
    unreadable, missing, last = result.stderr.splitlines()
    assert unreadable.startswith("tiny.toml is no image that can be read")
    assert missing == "none.png: No such file or directory"
    assert last == "fmnist: 2 of 4 files cannot be used"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_of_a_picture(tmp_path: Path, images: np.ndarray, format: str) -> None:
    picture = Image.new("RGB", (200, 300), "white")
    picture.paste(Image.fromarray(255 - images[0]).resize((140, 140)), (20, 100))
    picture.save(tmp_path / "shoe", format)
    expected = prepare(picture).image
    found = predict._read(tmp_path / "shoe").images[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_photograph_of_50_megapixels(tmp_path: Path, images: np.ndarray) -> None:
    picture = Image.new("L", (8192, 6144), "white")
    garment = Image.fromarray(255 - images[0])
    picture.paste(garment.resize((4096, 4096)), (200, 300))
    picture.save(tmp_path / "large.jpg")
    small = Image.new("L", (256, 192), "white")
    small.paste(garment.resize((128, 128)), (6, 9))
    difference = predict._read(tmp_path / "large.jpg").images[0] - prepare(small).image.astype(float)
    assert np.abs(difference).mean() < 8


def drawn(kind: str, strength: int, image: np.ndarray, folder: Path) -> predict._Batch:
    """What is read of a picture as the benchmark draws it."""
    file = folder / "picture"
    file.write_bytes(drawing.draw(kind, strength, image, np.random.default_rng(0)))
    return predict._read(file)


@pytest.mark.parametrize("strength", drawing.STRENGTHS[:2])
@pytest.mark.parametrize("kind", drawing.KINDS)
def test_a_garment_is_found_on_every_background(tmp_path: Path, data_dir: Path, kind: str, strength: int) -> None:
    """Of images that no preparation was made for, what is read looks like them."""
    originals = dataset.load_images(data_dir)[0].images[:8]
    read = np.array([drawn(kind, strength, image, tmp_path).images[0] for image in originals])
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(read, originals, strict=True)]
    assert np.median(alike) > 0.9


def test_white_cloth_on_a_darker_background_is_dark_and_not_black() -> None:
    grey = np.full((200, 200), 190, np.uint8)
    grey[40:160, 60:140] = 240  # a white garment,
    grey[40:60, 60:140] = 60  # its collar
    found = prepare(Image.fromarray(grey)).image
    assert found[:2, 6:22].min() > 200
    assert 10 < found[10:27, 7:21].min() <= found[10:27, 7:21].max() < 80


def test_a_background_as_strong_as_the_garment_is_warned_of(tmp_path: Path, images: np.ndarray) -> None:
    contrasts = [drawn("wood", strength, images[1], tmp_path).contrast for strength in drawing.STRENGTHS]
    assert contrasts[0] > contrasts[1] > contrasts[2]
    assert predict._warning(0.0, contrasts[0]) is None
    assert "background" in str(predict._warning(0.0, contrasts[2]))


def test_arrays_that_are_dark_on_light_are_noticed(
    finished: Path, tmp_path: Path, images: np.ndarray, said: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "dark.npy", np.concatenate([255 - images[:20], images[20:30]]))
    assert likeliest(finished / RUN, tmp_path / "dark.npy") == said[:30].tolist()
    assert "dark.npy: dark on light, so taken as their negatives: 20 of 30 images" in caplog.text


def test_what_is_unlike_the_training_images_is_warned_of(
    finished: Path, tmp_path: Path, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (50, 28, 28), np.uint8)
    np.save(tmp_path / "both.npy", np.concatenate([images[:1000], noise]))
    found = list(predict.predict(RunDir(finished / RUN), [tmp_path / "both.npy"]))
    warned = [one.warning is not None for one in found]
    assert np.mean(warned[:1000]) < 0.05
    assert np.mean(warned[1000:]) == 1
    assert "; WARNING: unlike the training images" in str(found[-1])
    assert json.loads(found[-1].json())["distance"] > 1

    # A run of an earlier version has no such file.
    older = shutil.copytree(finished / RUN, tmp_path / "older")
    (older / "novelty.npz").unlink()
    found = list(predict.predict(RunDir(older), [tmp_path / "both.npy"]))
    assert (found[-1].distance, found[-1].warning) == (None, None)
    assert "novelty.npz is missing" in caplog.text
    (older / "novelty.npz").write_bytes((finished / RUN / "novelty.npz").read_bytes()[:1000])
    with pytest.raises(BadInput, match="novelty.npz is damaged"):
        list(predict.predict(RunDir(older), [tmp_path / "both.npy"]))


def test_show_draws_each_picture_beside_what_the_model_sees(
    run: Path, tmp_path: Path, images: np.ndarray, fmnist: Command
) -> None:
    Image.fromarray(images[0]).save(tmp_path / "first.png")
    np.save(tmp_path / "more.npy", images[1:3])
    fmnist("predict", "first.png", "more.npy", "--run", run, "--show", "shown.png")
    with Image.open(tmp_path / "shown.png") as sheet:
        shown = np.asarray(sheet)
    for index in range(3):
        seen = shown[120 * index : 120 * index + 112, 120:232, 0]
        assert (seen[::4, ::4] == images[index]).all()
    (tmp_path / "folder.png").mkdir()
    result = fmnist("predict", "first.png", "--run", run, "--show", "folder.png", code=64)
    assert "folder.png: Is a directory" in result.stderr


@pytest.mark.parametrize("show", ["shoe.png", "link.png", "shoe.jpg", "shoe"])
def test_what_is_shown_replaces_no_picture(finished: Path, tmp_path: Path, images: np.ndarray, show: str) -> None:
    Image.fromarray(images[0]).save(tmp_path / "shoe.png")
    (tmp_path / "link.png").symlink_to("shoe.png")
    (tmp_path / "shoe.jpg").write_bytes(before := (tmp_path / "shoe.png").read_bytes())
    with pytest.raises(BadInput, match=rf"--show .*{show}"):
        list(predict.predict(RunDir(finished / RUN), [tmp_path / "shoe.png"], show=tmp_path / show))
    assert {path.name for path in tmp_path.iterdir()} == {"shoe.png", "shoe.jpg", "link.png"}
    assert (tmp_path / "shoe.png").read_bytes() == (tmp_path / "shoe.jpg").read_bytes() == before


def test_an_array_without_a_garment_is_warned_of(
    run: Path, tmp_path: Path, images: np.ndarray, fmnist: Command
) -> None:
    np.save(tmp_path / "two.npy", np.stack([np.zeros_like(images[1]), images[1]]))
    empty, garment = map(json.loads, fmnist("predict", "two.npy", "--run", run, "--json").stdout.splitlines())
    assert "stands out" in empty["warning"]
    assert garment["warning"] is None
