"""Run `predict`: classify images from elsewhere with a run's model."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist.data import dataset, idx
from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.files import open_regular
from fmnist.recipe.schema import IMAGE_SHAPE
from fmnist.run import identity
from fmnist.run.folder import RunDir
from fmnist.text import printable, shorten

_TOP = 3
# A small file can hold an image that fits no memory.
_MOST_PIXELS = 50_000_000
# What differs from the background by more than this belongs to the garment.
_CONTRAST = 16
_MOST_NPY_BYTES = idx.MOST_ITEMS * IMAGE_SHAPE[0] * IMAGE_SHAPE[1] + 2**16


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image with their probabilities, the most likely first.

    index: the image's number, from 0, in a file that may hold several; None for a picture.
    """

    file: Path
    index: int | None
    classes: Sequence[tuple[str, float]]

    def __str__(self) -> str:
        number = "" if self.index is None else f"[{self.index}]"
        return f"{printable(self.file)}{number}: " + ", ".join(
            f"{label} {probability:.1%}" for label, probability in self.classes
        )

    def json(self) -> str:
        """Return a line of JSON; bytes of the file's name that are not UTF-8 become lone surrogates (PEP 383)."""
        name = os.fsencode(self.file).decode("utf-8", "surrogateescape")
        top = [{"class": label, "probability": round(probability, 6)} for label, probability in self.classes]
        return json.dumps({"file": name, "index": self.index, "top": top})


def predict(run: RunDir, files: Sequence[Path], choose: Callable[[], object] = lambda: None) -> Iterator[Prediction]:
    """Classify the images of PNG, JPEG, IDX and NPY files in their order; read all before the first is classified.

    Args:
        choose: called before TensorFlow is used, to choose its devices.

    Raises:
        BadInput: the run has no model, or a file cannot be read or shows nothing.
    """
    names = _names(run)
    batches = [(file, *_read(file)) for file in files]
    choose()
    from fmnist.network.inference import load

    sha256 = identity.of_model(run, stands_alone=True)
    model = load(run.model)
    identity.check_unchanged(run, sha256)
    for file, images, several in batches:
        for index, row in enumerate(averaging.probabilities([model], images)):
            top = np.argsort(-row, kind="stable")[:_TOP]
            yield Prediction(file, index if several else None, [(names[label], float(row[label])) for label in top])


def prepare(image: Image.Image) -> np.ndarray:
    """Convert a picture into the form of Fashion-MNIST's images: uint8 [28, 28], light on black.

    A picture of 28 x 28 pixels is at most inverted. Any other is trimmed to what differs from its corners, scaled to 28
    pixels on its longer side and centred (Xiao, Rasul and Vollgraf 2017, figure 1; without their sharpening).

    Raises:
        ValueError: all pixels are alike, or too few stand out.
    """
    size = f"{image.width} x {image.height}"
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # Pixels have 16 bits, which Pillow would clip to 8.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    upright = upright.convert("RGBA")
    paper = Image.new("RGBA", upright.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, upright).convert("L"))
    # In the 60,000 training images, the median of the corners is never above 35; the median of the border is, twice.
    background = float(np.median([grey[0, 0], grey[0, -1], grey[-1, 0], grey[-1, -1]]))
    if background > 127:
        grey, background = 255 - grey, 255 - background
    if grey.min() == grey.max():
        raise ValueError(f"all its pixels are alike ({size})")
    if grey.shape == IMAGE_SHAPE:
        return grey
    garment = np.abs(grey - background) > _CONTRAST
    rows, columns = np.flatnonzero(garment.any(axis=1)), np.flatnonzero(garment.any(axis=0))
    if len(rows) == 0:
        raise ValueError(f"nothing in it stands out from its corners ({size})")
    trimmed = Image.fromarray(grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scaled = ImageOps.contain(trimmed, IMAGE_SHAPE, Image.Resampling.BOX)
    small = np.asarray(ImageOps.pad(scaled, IMAGE_SHAPE))
    if not small.any():
        raise ValueError(f"what stands out from its corners is too thin ({size})")
    return small


def _names(run: RunDir) -> Sequence[str]:
    jobs = run.jobs() if run.config.exists() else {}
    if "train" not in jobs:
        raise BadInput(f"{run} holds no trained model; run `fmnist train` first, or name another folder with --run")
    hashes = jobs["train"]["data"]
    return dataset.classes(dataset.Source(run.path, hashes, hashes.items() <= dataset.SHA256.items()))


def _read(file: Path) -> tuple[np.ndarray, bool]:
    """Read the images of a file, uint8 [n, 28, 28], and tell whether its format may hold several."""
    try:
        with open_regular(file) as opened:
            start = opened.read(8)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
    if not start:
        raise BadInput(f"{file} is empty")
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(file), True
    if start.startswith((idx.GZIP, b"\0\0")):
        return idx.read(file, IMAGE_SHAPE)[0], True
    return _read_picture(file)[np.newaxis], False


def _read_npy(file: Path) -> np.ndarray:
    # NPY is not compressed, so the size of the file limits what its header may promise.
    if (size := file.stat().st_size) > _MOST_NPY_BYTES:
        raise BadInput(f"{file} has {size:,} bytes; give at most {idx.MOST_ITEMS:,} images, uint8 [n, 28, 28]")
    try:
        try:
            images = np.load(file, mmap_mode="r", allow_pickle=False)
        except OSError:
            # Some file systems cannot map files into memory.
            images = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy's parser raises many types for a damaged header
        raise BadInput(_unreadable(file, error, "cannot be read")) from error
    images = images[np.newaxis] if images.shape == IMAGE_SHAPE else images
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE or len(images) == 0:
        raise BadInput(f"{file} holds {images.dtype} {list(images.shape)}; give uint8 [n, 28, 28], light on black")
    return images


def _read_picture(file: Path) -> np.ndarray:
    # Pillow's own limit would print a warning; the check below replaces it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with open_regular(file) as opened, Image.open(opened, formats=("PNG", "JPEG")) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise BadInput(
                    f"{file} has {width} x {height} pixels, more than {_MOST_PIXELS // 10**6} million; make it smaller"
                )
            return prepare(image)
    except UnidentifiedImageError as error:
        raise BadInput(f"{file} is no image that can be read; give PNG, JPEG, IDX or NPY") from error
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"{file} cannot be used: {shorten(str(error))}") from error
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        raise BadInput(_unreadable(file, error, "is damaged")) from error


def _unreadable(file: Path, error: Exception, what: str) -> str:
    """Return the message about a file that cannot be read, by the cause: its content, or the system."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"{file}: {error.strerror}"
    return f"{file} {what} ({shorten(str(error) or type(error).__name__)})"
