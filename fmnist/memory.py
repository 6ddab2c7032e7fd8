"""How much memory this process may have, and whether a training surely needs more."""

import contextlib
import functools
import math
import re
from itertools import pairwise
from pathlib import Path

from fmnist.errors import BadInput
from fmnist.schema import CLASSES, IMAGE_SHAPE, ModelConfig, TrainingConfig

_FLOAT, _HALF = 4, 2  # bytes
# How many variables of its size each of Keras's optimizers keeps beside a weight.
_SLOTS = {"sgd": 0, "adam": 2, "adagrad": 1, "nadam": 2, "adadelta": 2, "rmsprop": 1}
# Of a control group: the files of its limit and of what it has.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_VERSION_2 = ("memory.max", "memory.current")
_PIXELS = math.prod(IMAGE_SHAPE)


def available() -> int:
    """Bytes that this process could still have: what the machine has free or can free, within its control groups.

    As much as there can be, where the system does not tell.
    """
    return min([_free(), *_limits()])


def check(model: ModelConfig, training: TrainingConfig, images: int, replicas: int = 1) -> None:
    """Refuse a training on the processors that surely has not enough memory, before TensorFlow dies of it.

    What is counted is the least that it needs: the weights as they were made, and for each replica the weights, the
    optimizer's variables and the gradients; a batch's activations; the images.

    Raises:
        BadInput: it needs more than there is.
    """
    widths = [_PIXELS, *model.hidden, CLASSES]
    weights = sum(below * above for below, above in pairwise(widths))
    copies = 2 + _SLOTS[training.optimizer] + (training.ema_momentum is not None)
    activations = min(training.batch_size, images) * sum(widths)
    needed = _FLOAT * weights * (1 + copies * replicas) + _HALF * activations + images * _PIXELS * replicas
    if needed > (there := available()):
        raise BadInput(
            f"model.hidden {_layers(model.hidden)} with training.batch_size {training.batch_size} needs "
            f"{needed / 2**30:,.1f} GiB of memory at least, and there are {there / 2**30:,.1f} GiB; "
            "choose fewer units or a smaller batch, or a larger machine"
        )


def _layers(units: tuple[int, ...]) -> str:
    """The units of some layers, for a person."""
    return "-".join(map(str, units[:6])) + "-..." * (len(units) > 6)


def _free() -> int:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        fields = {name: int(kilobytes) for name, kilobytes in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
        return 1024 * (fields.get("MemAvailable", 2**42) + fields.get("SwapFree", 0))
    return 2**62


def _limits() -> list[int]:
    """What each control group above this process leaves it, of version 2 or 1."""
    left = []
    for folder, limit, usage in _groups():
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))
            used = int((folder / usage).read_text(encoding="ascii"))
            left.append(max(0, most - used + _cache(folder)))
    return left


def _cache(folder: Path) -> int:
    """Of a group's memory, what holds files and is given up for others."""
    with contextlib.suppress(OSError):
        stat = (folder / "memory.stat").read_text(encoding="ascii")
        return sum(map(int, re.findall(r"^(?:total_)?(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
    return 0


@functools.cache
def _groups() -> list[tuple[Path, str, str]]:
    """Folder and files of each."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = Path("/sys/fs/cgroup", controllers)
                files = _VERSION_1 if controllers else _VERSION_2
                inner = root / path.strip("/")
                found += [(folder, *files) for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return found
