"""Small data sets of MNIST's layout that are not Fashion-MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np

from fmnist.data.dataset import Images

PLAIN = "{part}-{kind}-idx{ndim}-ubyte"
"""The path of a file, by its part, its kind and its IDX dimensions."""
EMNIST = {"t10k": "emnist-mnist-test", "train": "emnist-mnist-train"}


def idx(array: np.ndarray, dtype: int = 0x08, zeros: int = 0) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", zeros, dtype, array.ndim, *array.shape) + array.tobytes()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels(count: int) -> np.ndarray:
    return (np.arange(count) % 10).astype(np.uint8)


def images(count: int) -> Images:
    return Images(pixels(count), labels(count))


def lay(folder: Path, layout: str, **counts: int) -> Path:
    """Write so many images and labels of each part, compressed where the name says so."""
    for part, count in (counts or {"train": 20, "t10k": 20}).items():
        for kind, array in ("images", pixels(count)), ("labels", labels(count)):
            names = {"part": part, "PART": part.upper(), "kind": kind, "KIND": kind.upper(), "emnist": EMNIST[part]}
            path = folder / layout.format(**names, ndim=array.ndim)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx(array)) if path.suffix.lower() == ".gz" else idx(array))
    return folder
