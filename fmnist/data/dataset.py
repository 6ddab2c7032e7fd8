"""Find or fetch the four IDX files of the data set, verify them, and split off the validation images.

Data: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fmnist import environment
from fmnist.data import datafiles, idx
from fmnist.errors import BadInput
from fmnist.files import atomic_write, open_regular
from fmnist.memory import lasting
from fmnist.progress import folder_bar
from fmnist.recipe.schema import IMAGE_SHAPE, DataConfig

logger = logging.getLogger(__name__)

# Hashes of the uncompressed bytes: Zalando, Keras and Debian each compressed the same bytes differently.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
VALIDATION_IMAGES = {"tuned-mlp": 6000, "regularized-mlp": 5000, "none": 0}
SYSTEM = Path("/usr/share/datasets/fashion-mnist")

_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_DOWNLOAD_SECONDS = 300
_DOWNLOAD_BYTES = 31_000_000  # approximately, since packagers compress differently
_KERAS_DOWNLOAD = "import socket; socket.setdefaulttimeout(10); import keras; keras.datasets.fashion_mnist.load_data()"


@dataclass(frozen=True)
class Images:
    """Images with their labels, as contiguous, writable arrays.

    images: uint8 [n, 28, 28], from 0 (background) to 255.
    labels: uint8 [n], from 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> "Images":
        """Return copies of the images and labels at `indices`, integer [k]."""
        return Images(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Source:
    """Where images were read.

    sha256: the hash of each IDX file's uncompressed bytes, by the file's name without `.gz`.
    """

    directory: Path
    sha256: dict[str, str]
    is_fashion_mnist: bool

    @property
    def name(self) -> str:
        return "Fashion-MNIST" if self.is_fashion_mnist else f"{self.directory.resolve().name} (not Fashion-MNIST)"


@dataclass(frozen=True)
class TrainData:
    """The images of the train files: those to train on, and those held back for validation, which may be none."""

    train: Images
    validation: Images
    source: Source


def load_train(directory: Path | None, config: DataConfig) -> TrainData:
    """Read the training images from where `load_images` finds them, and split them as `config` says.

    Raises:
        BadInput: a file is missing or damaged, no source has the data, or there are too few images for the split.
    """
    images, source = load_images(directory)
    train, validation = split(images, config)
    return TrainData(train, validation, source)


def load_images(directory: Path | None = None) -> tuple[Images, Source]:
    """Read all training images, before they are split, from the two train files and from no others.

    A download is an exception: all four files are verified and kept, so that no other job downloads them again.

    If `directory` or else FMNIST_DATA names a folder, only that folder is searched; any data set of MNIST's layout will
    do. Otherwise Fashion-MNIST is looked for in the cache, on this system and in Keras's cache, and then downloaded.

    Raises:
        BadInput: a file is missing or damaged, or no source has the data.
    """
    (images,), source = _load(directory, ("train",))
    return images, source


def load_test(directory: Path | None = None) -> tuple[Images, Source]:
    """Read the test images from the two t10k files and from no others, in the places that `load_images` searches.

    Raises:
        BadInput: a file is missing or damaged, or no source has the data.
    """
    (images,), source = _load(directory, ("t10k",))
    return images, source


def fetch(directory: Path | None = None) -> Source:
    """Make sure that all four files exist and are intact; download them into the cache if necessary.

    Raises:
        BadInput: a file is missing or damaged, no source has the data, or what was downloaded cannot be kept.
    """
    source = _load(directory, ("train", "t10k"))[1]
    if not source.directory.exists():
        raise BadInput(f"what was downloaded cannot be kept in {cache()}; make room there, or set XDG_CACHE_HOME")
    return source


def classes(source: Source) -> tuple[str, ...]:
    """Return the names of the labels 0 to 9."""
    return _CLASSES if source.is_fashion_mnist else tuple(str(label) for label in range(len(_CLASSES)))


def cache() -> Path:
    """Return the folder for downloaded files."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "fmnist")
    if home := _home():
        return home / ".cache" / "fmnist"
    # Other users may write there, which does no harm: what is read there is verified.
    return Path(tempfile.gettempdir(), f"fmnist-{os.getuid()}")


def _keras_home() -> Path | None:
    # The user's value, not the one that this process sets for Keras.
    if folder := environment.original().get("KERAS_HOME"):
        return Path(folder)
    home = _home()
    return home and home / ".keras"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        # A container's user may be a number without an account.
        return None


def _load(directory: Path | None, parts: Sequence[str]) -> tuple[list[Images], Source]:
    if given := directory or os.environ.get("FMNIST_DATA"):
        try:
            return _read(Path(given), parts)[:2]
        except (BadInput, OSError) as error:
            raise BadInput(f"{_reason(error)}; put a good copy there, or name another folder with --data") from error
    for name, folder in _folders().items():
        # On a new machine there is no cache yet, which is nothing to warn of. A folder may be out of reach, too.
        if folder and os.path.exists(folder) and (loaded := _try(name, nullcontext(folder), parts)):
            return loaded
    for name, download in {"the Keras download": _keras_download, "the Debian package": _debian_package}.items():
        # All is kept, so that no other job downloads it again.
        if loaded := _try(name, download(), tuple(datafiles.PARTS)):
            images, source = dict(zip(datafiles.PARTS, loaded[0], strict=True)), loaded[1]
            files = [file for part in parts for file in datafiles.PARTS[part]]
            return [images[part] for part in parts], replace(source, sha256={file: SHA256[file] for file in files})
    raise BadInput(
        f"Fashion-MNIST was not found and cannot be downloaded; put {', '.join(f'{file}.gz' for file in SHA256)} "
        "into a folder and name it with --data or FMNIST_DATA"
    )


def _try(name: str, source: AbstractContextManager[Path], parts: Sequence[str]) -> tuple[list[Images], Source] | None:
    """Read from one source, which must hold Fashion-MNIST, and keep it in the cache; if that fails, log why."""
    try:
        with source as directory:
            images, found, paths = _read(directory, parts)
            for file, sha256 in found.sha256.items():
                if sha256 != SHA256[file]:
                    raise BadInput(f"{paths[file]} is not Fashion-MNIST's: its SHA-256 is {sha256}")
            return images, found if directory == cache() else _keep(found, paths)
    except (BadInput, OSError) as error:
        # The cache of a machine may hold what a training needs alone.
        if not (isinstance(error, datafiles.Missing) and isinstance(source, nullcontext)):
            logger.warning("%s: %s", name, _reason(error))
        return None


def _reason(error: BadInput | OSError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def _folders() -> dict[str, Path | None]:
    keras = _keras_home()
    return {
        "the cache": cache(),
        "this system": SYSTEM,
        "the Keras cache": keras and keras / "datasets" / "fashion-mnist",
    }


@contextmanager
def _keras_download() -> Iterator[Path]:
    # A separate process can have a time limit and a folder of its own, and takes TensorFlow and its messages with it.
    with tempfile.TemporaryDirectory(prefix="fmnist-") as folder, folder_bar("data", Path(folder), _DOWNLOAD_BYTES):
        _run([sys.executable, "-c", _KERAS_DOWNLOAD], Path(folder), KERAS_HOME=folder)
        yield Path(folder, "datasets", "fashion-mnist")


@contextmanager
def _debian_package() -> Iterator[Path]:
    """Download and unpack the package of Debian and Ubuntu, with private package lists, which need no root."""
    with tempfile.TemporaryDirectory(prefix="fmnist-") as name:
        folder = Path(name)
        for needed in ("lists", "cache/archives"):
            (folder / needed / "partial").mkdir(parents=True)
        options = [f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache"]
        # As root, apt would download as the user _apt, who cannot enter a private folder.
        options += ["APT::Sandbox::User=root", "Acquire::Retries=0", "Acquire::http::Timeout=10"]
        apt_get = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        _run([*apt_get, "update"], folder)
        with folder_bar("data", folder, _DOWNLOAD_BYTES):
            _run([*apt_get, "download", "dataset-fashion-mnist"], folder)
        _run(["dpkg", "-x", *(deb.name for deb in folder.glob("*.deb")), "."], folder)
        yield folder / SYSTEM.relative_to("/")


def _run(command: Sequence[str], folder: Path, **environment: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, timeout=_DOWNLOAD_SECONDS, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BadInput(f"{Path(command[0]).name} failed: {reason or f'exit {error.returncode}'}") from error
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{Path(command[0]).name} was not done after {_DOWNLOAD_SECONDS} s") from error


def _keep(source: Source, paths: Mapping[str, Path]) -> Source:
    """Copy verified files into the cache and return that as the source; without room or permission, the given one."""
    folder = cache()
    try:
        for file, path in paths.items():
            # Keep the file as it was found, compressed or not, and remove the other form.
            with open_regular(path) as original:
                compressed = original.read(len(idx.GZIP)) == idx.GZIP
                original.seek(0)
                with atomic_write(folder / f"{file}{'.gz' * compressed}") as copy:
                    shutil.copyfileobj(original, copy)
            (folder / f"{file}{'.gz' * (not compressed)}").unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the cache %s cannot be written: %s", folder, error.strerror)
        return source
    return Source(folder, source.sha256, source.is_fashion_mnist)


def _read(directory: Path, parts: Sequence[str]) -> tuple[list[Images], Source, dict[str, Path]]:
    """Return the images of each part, the source that they were read from, and the path of each file."""
    found = datafiles.find(directory, parts)
    result = []
    hashes = {}
    for part in parts:
        of_images, of_labels = datafiles.PARTS[part]
        images, hashes[of_images] = _read_alike(directory, found[of_images], IMAGE_SHAPE)
        labels, hashes[of_labels] = _read_alike(directory, found[of_labels], ())
        images_path, labels_path = found[of_images][0], found[of_labels][0]
        if len(images) != len(labels):
            raise BadInput(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels")
        if labels.max() >= len(_CLASSES):
            raise BadInput(
                f"{labels_path}: label {labels.max()} is above {len(_CLASSES) - 1}; "
                f"a data set of {len(_CLASSES)} classes is expected, its labels from 0"
            )
        result.append(Images(images, labels))
    is_fashion_mnist = all(SHA256[file] == sha256 for file, sha256 in hashes.items())
    return result, Source(directory, hashes, is_fashion_mnist), {file: paths[0] for file, paths in found.items()}


def _read_alike(directory: Path, paths: Sequence[Path], item: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Read copies of one file, such as one compressed and one not, as uint8 [n, *item] and the SHA-256 of the bytes."""
    array, sha256 = idx.read(paths[0], item)
    for path in paths[1:]:
        if idx.read(path, item)[1] != sha256:
            datafiles.refuse_several(directory, [paths[0], path])
    return array, sha256


def split(images: Images, config: DataConfig) -> tuple[Images, Images]:
    """Return the images to train on and the validation images, both stratified by class, as `config` says.

    Raises:
        BadInput: there are too few images.
    """
    # The import takes a second, and `fmnist data` does not need it.
    with lasting():
        from sklearn.model_selection import train_test_split
        from sklearn.utils import resample

    held_back = VALIDATION_IMAGES[config.split]
    seed = config.split_seed
    train, validation = np.arange(len(images)), np.arange(0)
    try:
        if held_back:
            train, validation = train_test_split(train, test_size=held_back, stratify=images.labels, random_state=seed)
        if config.train_limit is not None and config.train_limit < len(train):
            train = resample(
                train, replace=False, n_samples=config.train_limit, stratify=images.labels[train], random_state=seed
            )
    except ValueError as error:
        raise BadInput(f"data.split = {config.split!r} does not fit {len(images)} images: {error}") from error
    return images.take(train), images.take(validation)
