"""What an interrupted training goes on from: one file, replaced whole."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.errors import BadInput, explain
from fmnist.files import atomic_write, open_regular


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of plain values and NumPy arrays; `load` gives them back bit for bit."""
    arrays: list[np.ndarray] = []

    def reference(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {"array": len(arrays) - 1}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")

    tree = json.dumps(state, default=reference)
    with atomic_write(path) as file:
        np.savez(file, np.array(tree), *arrays)


def load(path: Path) -> dict[str, Any] | None:
    """The saved state, or None where there is none.

    Raises:
        BadInput: the file is damaged.
        OSError: it cannot be read, whatever it holds.
    """
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:

            def resolve(value: dict[str, Any]) -> Any:
                return file[f"arr_{value['array'] + 1}"] if value.keys() == {"array"} else value

            return json.loads(str(file["arr_0"]), object_hook=resolve)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if explain(error):
            raise
        raise BadInput(f"the checkpoint {path} is damaged ({error})") from error
