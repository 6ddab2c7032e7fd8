"""What an interrupted training goes on from: one file, replaced whole."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import arrays
from fmnist.errors import BadInput

_TREE = "arr_0"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of plain values and NumPy arrays; `load` gives them back bit for bit."""
    leaves: list[np.ndarray] = []

    def reference(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            leaves.append(value)
            return {"array": len(leaves) - 1}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")

    tree = json.dumps(state, default=reference)
    arrays.save(path, {_TREE: np.array(tree), **{f"arr_{number}": leaf for number, leaf in enumerate(leaves, 1)}})


def load(path: Path) -> dict[str, Any] | None:
    """The saved state, or None where there is none.

    Raises:
        BadInput: the file is damaged.
        OSError: it cannot be read, whatever it holds.
    """
    try:
        found = arrays.load(path)

        def resolve(value: dict[str, Any]) -> Any:
            return found[f"arr_{value['array'] + 1}"] if value.keys() == {"array"} else value

        return dict(json.loads(str(found[_TREE]), object_hook=resolve))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"the checkpoint {path} is damaged ({error})") from error


def fits(
    state: dict[str, Any],
    weights: Sequence[np.ndarray],
    optimizer: Sequence[np.ndarray],
    callbacks: Sequence[dict[str, Any]],
) -> bool:
    """Whether a training's state is of such weights and callbacks, so that nothing of it is taken up half-way."""
    seconds, told = state.get("seconds"), state.get("callbacks")
    return (
        _alike(state.get("weights"), weights)
        and _alike(state.get("optimizer"), optimizer)
        and isinstance(state.get("stopped"), bool)
        and _are_numbers(seconds)
        and isinstance(told, list)
        and len(told) == len(callbacks)
        and all(isinstance(values, dict) for values in told)
        and all(_goes_on(values, known, weights) for values, known in zip(told, callbacks, strict=True))
        and all(_is_history(values["history"], len(seconds or ())) for values in told if "history" in values)
    )


def _alike(found: Any, known: Sequence[np.ndarray]) -> bool:
    if not isinstance(found, list) or [np.shape(one) for one in found] != [np.shape(one) for one in known]:
        return False
    # A variable without dimensions is a plain number in the file.
    return all(
        one.dtype == other.dtype if isinstance(one, np.ndarray) else isinstance(one, int | float)
        for one, other in zip(found, known, strict=True)
    )


def _goes_on(values: dict[str, Any], known: dict[str, Any], weights: Sequence[np.ndarray]) -> bool:
    """Whether a callback that begins as `known` may come to `values`."""

    def may_be(name: str, value: Any) -> bool:
        begin = known[name]
        if begin is None:
            kept = _alike(value, weights) if name.endswith("weights") else type(value) is float
            return value is None or kept
        if isinstance(begin, bool) or isinstance(value, bool):
            return type(value) is type(begin)
        return isinstance(value, (int, float) if isinstance(begin, int | float) else type(begin))

    # It becomes a function, which is not saved.
    if known.keys() - values.keys() - {"monitor_op"}:
        return False
    return all(may_be(name, value) for name, value in values.items() if name in known)


def _is_history(found: Any, epochs: int) -> bool:
    return isinstance(found, dict) and all(_are_numbers(values) and len(values) == epochs for values in found.values())


def _are_numbers(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(value, float) for value in found)
