"""`predict`: what a run's model says of images from elsewhere."""

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
# A small file can hold an image that no memory can.
_MOST_PIXELS = 50_000_000
# What differs from the background by more than this belongs to the garment.
_CONTRAST = 16
_MOST_NPY_BYTES = idx.MOST_ITEMS * IMAGE_SHAPE[0] * IMAGE_SHAPE[1] + 2**16


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, with their probabilities, the likeliest first.

    index: the image's number in a file that holds several, from 0; None in a file of one.
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
        """One line of JSON; bytes of the file's name that are not UTF-8 are lone surrogates (PEP 383)."""
        name = os.fsencode(self.file).decode("utf-8", "surrogateescape")
        top = [{"class": label, "probability": round(probability, 6)} for label, probability in self.classes]
        return json.dumps({"file": name, "index": self.index, "top": top})


def predict(run: RunDir, files: Sequence[Path], choose: Callable[[], object] = lambda: None) -> Iterator[Prediction]:
    """Classify the images of PNG, JPEG, IDX and NPY files, in their order; all are read before the first is classified.

    Args:
        choose: called before TensorFlow is used, to choose its devices.

    Raises:
        BadInput: no model in the run, or a file that cannot be read or shows nothing.
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
    """Make of a picture what Fashion-MNIST makes of one: uint8 [28, 28], light on black.

    A picture of 28 x 28 pixels is kept, but for its sign. Any other is trimmed to what differs from its corners, scaled
    to 28 pixels on its longer side and centred (Xiao, Rasul and Vollgraf 2017, figure 1; without their sharpening).

    Raises:
        ValueError: all its pixels are alike, or too few of them are not.
    """
    size = f"{image.width} x {image.height}"
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # 16 bits a pixel, which Pillow would clip to 8.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    upright = upright.convert("RGBA")
    paper = Image.new("RGBA", upright.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, upright).convert("L"))
    # Of the 60,000 training images none has corners above 35 in the median, but two have such a border.
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
    """Images uint8 [n, 28, 28], and whether the file may hold several."""
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
    # It is not compressed: what its header may promise, the file has.
    if (size := file.stat().st_size) > _MOST_NPY_BYTES:
        raise BadInput(f"{file} has {size:,} bytes; give at most {idx.MOST_ITEMS:,} images, uint8 [n, 28, 28]")
    try:
        try:
            images = np.load(file, mmap_mode="r", allow_pickle=False)
        except OSError:
            # Some file systems map no files into memory.
            images = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged header raises whatever NumPy's parser of it meets
        raise BadInput(_unreadable(file, error, "cannot be read")) from error
    images = images[np.newaxis] if images.shape == IMAGE_SHAPE else images
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE or len(images) == 0:
        raise BadInput(f"{file} holds {images.dtype} {list(images.shape)}; give uint8 [n, 28, 28], light on black")
    return images


def _read_picture(file: Path) -> np.ndarray:
    # Its own limit warns in some lines of its own.
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
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        raise BadInput(_unreadable(file, error, "is damaged")) from error


def _unreadable(file: Path, error: Exception, what: str) -> str:
    """The line on a file, by what its reading met: what it holds, or what the system refused."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"{file}: {error.strerror}"
    return f"{file} {what} ({shorten(str(error) or type(error).__name__)})"
