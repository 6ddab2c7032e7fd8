"""Tell a trial's hyperparameters: in few words for a line or a table, and as options that set them again."""

import json
import shlex
import textwrap
from collections.abc import Mapping
from typing import Any

HIDDEN = "model.hidden"
LAYERS = "model.layers"


def units(layer: int) -> str:
    """Return the name of the hyperparameter for the units of hidden layer `layer`, counted from 1."""
    return f"model.units_{layer}"


def short(value: Any) -> str:
    """Return a value in few characters: a number with three digits, a list of units as `256-128`."""
    if isinstance(value, list | tuple):
        return "-".join(map(short, value))
    text = str(value)
    try:
        return f"{float(text):.3g}" if set(text) & set(".e") else text
    except ValueError:
        return text


def name(key: str) -> str:
    """Return the last part of a dotted key."""
    return key.rpartition(".")[2]


def sentence(values: Mapping[str, Any]) -> str:
    """Return values by dotted key as words: `hidden=256-128 optimizer=adam learning_rate=0.00123`."""
    return " ".join(f"{name(key)}={short(value)}" for key, value in _model_first(values))


def options(values: Mapping[str, Any]) -> str:
    """Return values by dotted key as options of `fmnist train` for a shell, exactly, in lines of at most 79 columns."""
    words = " ".join(f"--set={shlex.quote(f'{key}={_toml(value)}')}" for key, value in _model_first(values))
    # No value has a space in it.
    return " \\\n".join(textwrap.wrap(words, 77, initial_indent="  ", subsequent_indent="  ", **_WHOLE))


_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def of_row(row: Mapping[str, Any], key: str) -> str:
    """Return the value that a trial's row has of a key of `search.space`, in few characters."""
    if key != HIDDEN or LAYERS not in row:
        return short(row.get(key, ""))
    layers = str(row[LAYERS])
    widths = [str(row.get(units(layer), "")) for layer in range(1, int(layers) + 1 if layers.isdecimal() else 1)]
    return "-".join(widths)


def _model_first(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(values.items(), key=lambda item: (item[0] != HIDDEN, not item[0].startswith("model.")))


def _toml(value: Any) -> str:
    """Return a value as `--set` takes it; it takes a bare word as text."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
