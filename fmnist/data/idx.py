"""Read IDX files (http://yann.lecun.com/exdb/mnist/), compressed or not; their content decides, not their names."""

import contextlib
import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import cast

import numpy as np

from fmnist import memory
from fmnist.errors import BadInput
from fmnist.files import open_regular

GZIP = b"\x1f\x8b"

MOST_ITEMS = 5_000_000
"""The most items of a file: some six times as many as the largest data set of this layout has."""

_UBYTE = 0x08
_DEFLATE_MAX_RATIO = 1032
# What people give in place of an IDX file, by its first bytes.
_OTHERS = {
    GZIP: "gzip within gzip",
    b"PK": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x93NUMPY": "NPY",
    b"\x89PNG": "a PNG",
    b"<": "HTML",
    b"version ": "a pointer of Git LFS",
}


def read(path: Path, item: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Read an IDX file, compressed or not.

    Returns:
        The items as an array, uint8 [n, *item], and the SHA-256 of the uncompressed file.

    Raises:
        BadInput: the file cannot be read, or does not hold items of this shape.
    """
    try:
        with open_regular(path) as raw, contextlib.ExitStack() as stack:
            limit = os.fstat(raw.fileno()).st_size * _DEFLATE_MAX_RATIO
            compressed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            file = stack.enter_context(gzip.GzipFile(fileobj=raw)) if compressed else cast(io.BufferedIOBase, raw)
            return _parse(file, item, limit)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _parse(file: io.BufferedIOBase, item: tuple[int, ...], limit: int) -> tuple[np.ndarray, str]:
    ndim = 1 + len(item)
    magic = bytes([0, 0, _UBYTE, ndim])
    header = file.read(4 + 4 * ndim)
    for start, kind in _OTHERS.items():
        if header.startswith(start):
            raise ValueError(f"it is {kind}, not IDX")
    if len(header) < 4 + 4 * ndim:
        raise ValueError(f"it ends within the header, after {len(header)} bytes")
    if header[:4] != magic:
        raise ValueError(f"its magic number is {header[:4].hex()}, not {magic.hex()}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    if shape[1:] != item:
        raise ValueError(f"its items are {list(shape[1:])}, not {list(item)}")
    # Check this before memory is allocated: a header of a few bytes can promise terabytes.
    size = math.prod(shape)
    if not 0 < size <= limit:
        raise ValueError(f"its header counts {shape[0]} items: none, or more than a file of its size can hold")
    if shape[0] > MOST_ITEMS:
        raise ValueError(f"its header counts {shape[0]:,} items, more than the {MOST_ITEMS:,} that fmnist takes")
    if size > (there := memory.available()):
        raise ValueError(f"it holds {size:,} bytes, and there are {there:,} of memory")
    data = np.empty(size, np.uint8)
    found = file.readinto(data.data)
    if found < size:
        raise ValueError(f"it ends after {found} of {size} bytes of data")
    if file.read(1):
        raise ValueError(f"it goes on after the {size} bytes of data that its header counts")
    digest = hashlib.sha256(header)
    digest.update(data.data)
    return data.reshape(shape), digest.hexdigest()
