"""Save and load the state that an interrupted training continues from: one file, replaced as a whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import arrays
from fmnist.errors import BadInput

_TREE = "arr_0"
_DIGEST = "sha256"  # of the tree; zip's own checksums are right again when another program has rewritten the archive


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of plain values and NumPy arrays; `load` returns them bit for bit."""
    leaves: list[np.ndarray] = []

    def reference(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            leaves.append(value)
            return {"array": len(leaves) - 1}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")

    tree = json.dumps(state, default=reference)
    numbered = {f"arr_{number}": leaf for number, leaf in enumerate(leaves, 1)}
    arrays.save(path, {_TREE: np.array(tree), _DIGEST: np.array(_digest(tree)), **numbered})


def load(path: Path) -> dict[str, Any] | None:
    """Return the saved state, or None if there is no file.

    Raises:
        BadInput: the file is damaged.
        OSError: the system cannot read the file.
    """
    try:
        found = arrays.load(path)
        tree = str(found[_TREE])
        if str(found[_DIGEST]) != _digest(tree):
            raise ValueError("its state is not what its checksum says")

        def resolve(value: dict[str, Any]) -> Any:
            return found[f"arr_{value['array'] + 1}"] if value.keys() == {"array"} else value

        return dict(json.loads(tree, object_hook=resolve))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"the checkpoint {path} is damaged ({error})") from error


def _digest(tree: str) -> str:
    return hashlib.sha256(tree.encode()).hexdigest()
