"""Run `predict`: classify images from elsewhere with a run's model."""

import errno
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fmnist.data import dataset, idx
from fmnist.errors import BadInput, explain
from fmnist.evaluation import averaging, preparation
from fmnist.files import atomic_write, check_output, open_regular
from fmnist.network import novelty, pictures
from fmnist.recipe.schema import IMAGE_SHAPE
from fmnist.run import identity
from fmnist.run.folder import RunDir
from fmnist.text import printable, shorten

logger = logging.getLogger(__name__)

_TOP = 3
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_READABLE = "PNG, JPEG, WEBP, GIF, BMP, TIFF, IDX or NPY"
# A small file can hold an image that fits no memory. Cameras of "50 megapixels" exceed that number a little.
_MOST_PIXELS = 100_000_000
_MOST_SHOWN = 100
_TOGETHER = 1000  # images of several files that are classified in one call
_MOST_NPY_BYTES = idx.MOST_ITEMS * IMAGE_SHAPE[0] * IMAGE_SHAPE[1] + 2**16


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image with their probabilities, the most likely first.

    index: the image's number, from 0, in a file that may hold several; None for a picture.
    distance: how unlike the training images it is, as `Novelty.distance` says it; None if the run does not know.
    warning: why the answer may be wrong; None if nothing speaks against it.
    """

    file: Path
    index: int | None
    classes: Sequence[tuple[str, float]]
    distance: float | None = None
    warning: str | None = None

    def __str__(self) -> str:
        name, *said = self.lines()
        return f"{name}: {'; '.join(said)}"

    def lines(self) -> list[str]:
        """Return the image's name, its classes, and what is known of the answer's worth."""
        lines = [self.name, ", ".join(f"{label} {probability:.1%}" for label, probability in self.classes)]
        if self.distance is not None:
            lines.append(f"distance {self.distance:.1f}")
        if self.warning is not None:
            lines.append(f"WARNING: {self.warning}")
        return lines

    @property
    def name(self) -> str:
        return printable(self.file) + ("" if self.index is None else f"[{self.index}]")

    def json(self) -> str:
        """Return a line of JSON; bytes of the file's name that are not UTF-8 become lone surrogates (PEP 383)."""
        name = os.fsencode(self.file).decode("utf-8", "surrogateescape")
        top = [{"class": label, "probability": round(probability, 6)} for label, probability in self.classes]
        distance = None if self.distance is None else round(self.distance, 3)
        line = {"file": name, "index": self.index, "top": top, "distance": distance, "warning": self.warning}
        return json.dumps(line)


class _Batch(NamedTuple):
    """The images of a file.

    images: uint8 [n, 28, 28], light on black.
    original: the picture that the only image was made from; None if the file holds arrays.
    contrast: as `preparation.Prepared` says it.
    """

    file: Path
    images: np.ndarray
    original: Image.Image | None = None
    contrast: float = np.inf


def predict(
    run: RunDir,
    files: Sequence[Path],
    choose: Callable[[], object] = lambda: None,
    show: Path | None = None,
) -> Iterator[Prediction]:
    """Classify the images of picture, IDX and NPY files in their order; read all before the first is classified.

    A file that cannot be used costs a line in the log, and the others are classified.

    Args:
        choose: called before TensorFlow is used, to choose its devices.
        show: a PNG file to write, of the first 100 pictures beside what the model sees of them.

    Raises:
        BadInput: the run has no model, or `show` is no place for a PNG file; or, after the others were classified, a
            file cannot be used.
    """
    names = _names(run)
    if show:
        _check_shown(show, files)
    batches, unusable = _read_all(files)
    if batches:
        yield from _classify(run, batches, names, choose, show)
    if unusable:
        raise BadInput(unusable[0] if len(files) == 1 else f"{len(unusable)} of {len(files)} files cannot be used")


def _check_shown(show: Path, files: Sequence[Path]) -> None:
    if show.suffix.lower() != ".png":
        # As in `--show a.jpg b.jpg` of someone who takes it for a switch.
        raise BadInput(f"--show {show} is to be written; name a file that ends in .png")
    if os.path.realpath(show) in map(os.path.realpath, files):
        raise BadInput(f"--show {show} would replace a picture that is to be classified; name another file")
    check_output(show)


def _read_all(files: Sequence[Path]) -> tuple[list[_Batch], list[str]]:
    """Read each file, and return what was read, and why others cannot be used; of several files, log that too."""
    batches, unusable = [], []
    for file in files:
        try:
            batches.append(_read(file))
        except BadInput as error:
            unusable.append(str(error))
            if len(files) > 1:
                logger.error("%s", error)
    return batches, unusable


def _classify(
    run: RunDir, batches: Sequence[_Batch], names: Sequence[str], choose: Callable[[], object], show: Path | None
) -> Iterator[Prediction]:
    known = _novelty(run)
    choose()
    from fmnist.network.inference import load

    sha256 = identity.of_model(run, stands_alone=True)
    model = load(run.model)
    identity.check_unchanged(run, sha256)
    rows: list[tuple[Image.Image, np.ndarray, str]] = []
    for together in _together(batches):
        images = np.concatenate([batch.images for batch in together]) if len(together) > 1 else together[0].images
        distances = [None] * len(images) if known is None else map(float, known.distance(images))
        answers = zip(averaging.probabilities([model], images), distances, images, strict=True)
        for batch in together:
            for index, (row, distance, image) in enumerate(itertools.islice(answers, len(batch.images))):
                top = np.argsort(-row, kind="stable")[:_TOP]
                classes = [(names[label], float(row[label])) for label in top]
                number = None if batch.original else index
                contrast = batch.contrast if image.min() < image.max() else 0.0
                prediction = Prediction(batch.file, number, classes, distance, _warning(distance, contrast))
                if len(rows) < _MOST_SHOWN:
                    rows.append((batch.original or Image.fromarray(image), image, "\n".join(prediction.lines())))
                yield prediction
    if show:
        with atomic_write(show.resolve()) as opened:
            Image.fromarray(pictures.side_by_side(rows)).save(opened, "PNG")


def _together(batches: Sequence[_Batch]) -> Iterator[list[_Batch]]:
    """Yield the batches in lists that fit memory: a call of the model takes as long for one image as for many."""
    together: list[_Batch] = []
    for batch in batches:
        if together and sum(len(one.images) for one in together) + len(batch.images) > _TOGETHER:
            yield together
            together = []
        together.append(batch)
    yield together


def _warning(distance: float | None, contrast: float) -> str | None:
    if distance is not None and distance > 1:
        return "unlike the training images, so the answer may be wrong"
    if contrast < preparation.LEAST_CONTRAST:
        return "hardly stands out from its background, so the answer may be wrong"
    return None


def _novelty(run: RunDir) -> novelty.Novelty | None:
    try:
        return novelty.load(run.novelty)
    except FileNotFoundError:
        logger.warning("%s is missing, so nothing is said of how unlike the training images these are", run.novelty)
        return None
    except (OSError, ValueError) as error:
        if line := explain(error):
            raise BadInput(line) from error
        raise BadInput(f"{run.novelty} is damaged ({error}); remove it to do without") from error


def _names(run: RunDir) -> Sequence[str]:
    jobs = run.jobs() if run.config.exists() else {}
    if "train" not in jobs:
        raise BadInput(f"{run} holds no trained model; run `fmnist train` first, or name another folder with --run")
    hashes = jobs["train"]["data"]
    return dataset.classes(dataset.Source(run.path, hashes, hashes.items() <= dataset.SHA256.items()))


def _read(file: Path) -> _Batch:
    try:
        with open_regular(file) as opened:
            start = opened.read(8)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
    if not start:
        raise BadInput(f"{file} is empty")
    if start.startswith(b"\x93NUMPY"):
        return _Batch(file, _upturned(file, _read_npy(file)))
    # An icon, too, begins with two zeros; the third byte of IDX is a type.
    if start.startswith(idx.GZIP) or (start.startswith(b"\0\0") and start[2:3] >= b"\x08"):
        return _Batch(file, _upturned(file, idx.read(file, IMAGE_SHAPE)[0]))
    return _read_picture(file)


def _upturned(file: Path, images: np.ndarray) -> np.ndarray:
    """Return images with the negatives of those that are dark on white, and say how many those are."""
    white = preparation.corners(images) > 255 - preparation.BLACK
    if not white.any():
        return images
    logger.warning("%s: dark on light, so taken as their negatives: %d of %d images", file, white.sum(), len(images))
    return np.where(white[:, np.newaxis, np.newaxis], 255 - images, images)


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


def _read_picture(file: Path) -> _Batch:
    # Pillow's own limit would print a warning; the check below replaces it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with open_regular(file) as opened, Image.open(opened, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise BadInput(
                    f"{file} has {width} x {height} pixels, more than {_MOST_PIXELS // 10**6} million; make it smaller"
                )
            prepared = preparation.prepare(image)
            return _Batch(file, prepared.image[np.newaxis], prepared.original, prepared.contrast)
    except UnidentifiedImageError as error:
        raise BadInput(f"{file} is no image that can be read; give {_READABLE}") from error
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
