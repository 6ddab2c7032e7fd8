"""Files of arrays (NumPy's .npz): written whole, and read only if every byte is what was written."""

import errno
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fmnist import memory
from fmnist.files import atomic_write, open_regular
from fmnist.text import shorten


def save(path: Path, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    """Write arrays by name, atomically."""
    with atomic_write(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **dict[str, Any](arrays))


def load(path: Path) -> dict[str, np.ndarray]:
    """What `save` wrote.

    Raises:
        ValueError: it is damaged; one line says how.
        OSError: it cannot be read, whatever it holds; FileNotFoundError if there is none.
    """
    try:
        with open_regular(path) as file:
            _verify(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
    except Exception as error:  # whatever zip, zlib, or NumPy's parser of a header meets
        # A place before the file's beginning is not to be had either.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            error.filename = error.filename or str(path)
            raise
        raise ValueError(shorten(f"{type(error).__name__}: {error}")) from error


def _verify(file: IO[bytes]) -> None:
    """Compare what zip holds with its checksums, before anything of it is believed."""
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > memory.available():
            raise ValueError(f"it promises {size} bytes, more than this machine's memory")
        if bad := archive.testzip():
            raise ValueError(f"{bad} is not what its checksum says")
