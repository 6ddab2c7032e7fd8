"""The speed of a training against its alternatives, on this machine."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

from fmnist.recipe.schema import AugmentConfig

from . import machine
from .alternation import Alternation
from .cases import Case, Run, network
from .output import options, publish
from .table import Figure, cost, speedup

logger = logging.getLogger(__name__)

_HIDDEN = (512, 256, 50)
_BATCH_SIZES = {"cpu": (128,), "gpu": (128, 512, 4096)}
_WIDE = (2048, 2048, 2048)
_WIDE_BATCH_SIZE = 512
# Where an epoch of all images would take too long.
_WIDE_IMAGES = 4096
_CHOICE_IMAGES = 8192
_AUGMENT = AugmentConfig(shift=2, flip=True)
_PARTS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("dropout", {"dropout": 0.0}, {}),
    ("batch normalisation", {"batch_normalization": False}, {}),
    ("Adam's moments", {}, {"optimizer": "sgd"}),
    ("all three", {"dropout": 0.0, "batch_normalization": False}, {"optimizer": "sgd"}),
)
"""Parts of a step, and the keys of the model and of the training that leave them out."""
# What stock Keras at its best is chosen from; see `stock.Fit`.
_VARIANTS = [
    {"pipeline": pipeline, "steps_per_execution": 32, "jit_compile": jit_compile}
    for pipeline in ("images", "rows")
    for jit_compile in (False, True)
]
# From the issue that set them; what else is measured has none.
_GOALS = {
    ("cpu", 128): {
        "images/s over model.fit": ">= 3.5",
        "images/s over stock Keras at its best": ">= 1.3",
        "first epoch, with compilation, over model.fit": "<= 0.6",
        "peak memory over model.fit": "<= 1",
        "images/s over PyTorch, eager": ">= 1",
        "images/s over PyTorch, torch.compile": ">= 1",
        "epoch's time with all augmentations over none": "<= 1.15",
    },
    ("gpu", 128): {"images/s over model.fit": ">= 10", "epoch, seconds": "<= 0.1"},
    ("gpu", 512): {"epoch, seconds": "<= 0.04"},
    ("cpu", 512): {
        "share of the matrix products' speed, float32": ">= 0.6",
        "share of the matrix products' speed, mixed_bfloat16": ">= 0.6",
        "images/s in bfloat16 over float32": ">= 2",
    },
}


def fit(bench: Alternation, case: Case) -> Iterator[Figure]:
    figure = bench.epochs("images/s over model.fit", speedup, ours(case), Run("stock:Fit", case))
    yield figure
    yield dataclasses.replace(figure, name="epoch, seconds", theirs=(), values=figure.ours)


def best(bench: Alternation, case: Case) -> Iterator[Figure]:
    short = dataclasses.replace(case, train_limit=_CHOICE_IMAGES)
    chosen = bench.fastest([Run("stock:Fit", short, options) for options in _VARIANTS])
    theirs = dataclasses.replace(chosen, case=case)
    yield bench.epochs("images/s over stock Keras at its best", speedup, ours(case), theirs, note=str(theirs))


def first(bench: Alternation, case: Case) -> Iterator[Figure]:
    yield from bench.first_epoch_and_memory(cost, ours(case), Run("stock:Fit", case))


def torch(bench: Alternation, case: Case) -> Iterator[Figure]:
    for name, compiled in {"eager": False, "torch.compile": True}.items():
        theirs = Run("torch_loop:Torch", case, {"compiled": compiled})
        yield bench.epochs(f"images/s over PyTorch, {name}", speedup, ours(case), theirs)


def augment(bench: Alternation, case: Case) -> Iterator[Figure]:
    augmented = case.but("augmented", {}, {"augment": _AUGMENT})
    yield bench.epochs("epoch's time with all augmentations over none", cost, ours(augmented), ours(case))


def xla(bench: Alternation, case: Case) -> Iterator[Figure]:
    yield bench.epochs("images/s with XLA over without", speedup, ours(case), Run("ours:Fmnist", case, {"xla": False}))


def ceiling(bench: Alternation, case: Case) -> Iterator[Figure]:
    """Yield the time of a step's matrix products alone, relative to the time of our whole step."""
    for precision in ("float32", "mixed_bfloat16"):
        there = dataclasses.replace(case, precision=precision)
        theirs = bench.fastest([Run("products:Products", there, {"xla": xla}) for xla in (False, True)])
        name = f"share of the matrix products' speed, {precision}"
        yield bench.epochs(name, speedup, ours(there), theirs, note=str(theirs))


def parts(bench: Alternation, case: Case) -> Iterator[Figure]:
    """Yield how much faster an epoch is without a part of its steps, and how fast the matrix products alone are."""
    for name, model, training in _PARTS:
        less = case.but(f"without {name}", model, training)
        yield bench.epochs(f"images/s without {name}", speedup, ours(less), ours(case))
    theirs = bench.fastest([Run("products:Products", case, {"xla": xla}) for xla in (False, True)])
    yield bench.epochs("images/s, matrix products alone", speedup, theirs, ours(case), note=str(theirs))


def bfloat16(bench: Alternation, case: Case) -> Iterator[Figure]:
    lower = dataclasses.replace(case, precision="mixed_bfloat16")
    yield bench.epochs("images/s in bfloat16 over float32", speedup, ours(lower), ours(case))


def ours(case: Case) -> Run:
    return Run("ours:Fmnist", case)


Measurement = Callable[[Alternation, Case], Iterator[Figure]]
_NETWORK: tuple[Measurement, ...] = (fit, best, first, torch, augment, xla, parts)
_MATRICES: tuple[Measurement, ...] = (ceiling, bfloat16)


def main() -> None:
    parser = options("speed", __doc__, pairs=5)
    measurements = {function.__name__: function for function in _NETWORK + _MATRICES}
    usual = [name for name in measurements if name != "parts"]
    parser.add_argument("--only", nargs="+", choices=measurements, default=usual, help="what to measure")
    parser.add_argument("--images", type=int, help="train on so many images only, for a quick look")
    arguments = parser.parse_args()
    here = machine.describe()
    plan = [(network(_HIDDEN, size, arguments.images), _NETWORK) for size in _BATCH_SIZES[here["kind"]]]
    plan.append((network(_WIDE, _WIDE_BATCH_SIZE, arguments.images or _WIDE_IMAGES), _MATRICES))
    figures = []
    first_epoch_seconds: dict[str, float] = {}
    for case, functions in plan:
        goals = _GOALS.get((here["kind"], case.training.batch_size), {})
        # Closed after each case: idle processes hold memory.
        with Alternation(arguments.pairs) as bench:
            for function in functions:
                if function.__name__ not in arguments.only:
                    continue
                for figure in function(bench, case):
                    figures.append(dataclasses.replace(figure, goal=goals.get(figure.name, "")))
                    # Where a machine is lent by the minute, the table may come too late.
                    logger.info("%s", figures[-1])
        first_epoch_seconds |= bench.first_epoch_seconds

    publish("speed", here, figures, arguments.out, first_epoch_seconds=first_epoch_seconds)
