"""Write and read files of named arrays (NumPy's .npz): atomically, and only if their checksums are right."""

import errno
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fmnist import memory
from fmnist.files import atomic_write, open_regular
from fmnist.text import shorten

_DEFLATE = 1032  # the most that deflate can make of a byte


def save(path: Path, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    """Write arrays, each by its name, atomically."""
    with atomic_write(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **dict[str, Any](arrays))


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays that `save` wrote, by name.

    Raises:
        ValueError: the file is damaged; the message is one line that says how.
        OSError: the system cannot read the file; FileNotFoundError if it does not exist.
    """
    try:
        with open_regular(path) as file:
            _verify(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
    except MemoryError as error:
        # The file may be as it should be.
        raise MemoryError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, zlib and NumPy's header parser raise many types
        # Damage, too: an OSError without a number, and EINVAL from a seek to before the file's beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            error.filename = error.filename or str(path)
            raise
        raise ValueError(shorten(f"{type(error).__name__}: {error}")) from error


def _verify(file: IO[bytes]) -> None:
    """Verify the archive's checksums before its content is used; raise ValueError if one is wrong."""
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > _DEFLATE * os.fstat(file.fileno()).st_size:
            raise ValueError("it promises more than a file of its size can hold")
        if size > memory.available():
            raise MemoryError(f"its {size} bytes are more than there is memory")
        if bad := archive.testzip():
            raise ValueError(f"{bad} is not what its checksum says")
