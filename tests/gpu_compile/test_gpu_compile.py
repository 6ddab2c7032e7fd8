"""Every recipe's epoch compiles for GPUs, and what a step of it launches: by XLA's own compiler, without a GPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist.data.dataset import Images
from fmnist.devices import choose, gpu_precision
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.training.epoch import Program, resident, steps

pytestmark = [
    pytest.mark.gpu_compile,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the GPU compiler's version needs Python 3.11"),
]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TARGETS = {"a100": (8, 0), "h100": (9, 0)}
"""With their compute capabilities."""
KERNELS = {
    "baseline-mlp": (33, 41),
    "quick-mlp": (49, 50),  # three of them are the local contrast's
    "regularized-mlp": (51, 52),
    "smoke": (29, 33),
    "tuned-mlp": (30, 34),
    "wide-mlp": (53, 56),  # six of them are the local contrast's and the deformations'
}
"""The most that a step may launch on any target, in float32 and in a GPU's half precision. It is a small network's time
there: lower it with what the step launches, and raise it with a reason alone."""
# Of matrix products.
LIBRARY = {"__cublas$gemm", "__cublas$lt$matmul"}
IMAGES = 1000

Compiled = dict[tuple[str, str, str], dict[str, Any]]
"""What compiler.py says, by recipe, precision and target."""


def program(recipe: Recipe, precision: str) -> str:
    """Return the HLO text of an epoch, as `Program.train` calls it."""
    # Traced as for a GPU.
    devices = replace(choose("cpu", precision), kind="gpu")
    data = resident(Images(np.zeros((IMAGES, 28, 28), np.uint8), np.zeros(IMAGES, np.uint8)), devices)
    (order,), (weights,) = steps(np.arange(IMAGES), recipe.training.batch_size, replicas=1)
    totals = weights.sum(axis=1)
    arguments = (data, order, weights, totals, np.zeros(2, np.int32), np.zeros_like(totals), np.array(True))
    epoch = Program(recipe.model, recipe.training, devices)._train
    return epoch.experimental_get_compiler_ir(*arguments)(stage="hlo")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The optimized programs are beside their HLO, in pytest's folder."""
    subprocess.run(["make", "--silent", "build/gpu-compile.stamp"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("programs")
    for name in config.names():
        for precision in {"float32", *map(gpu_precision, TARGETS.values())}:
            (folder / f"{name}.{precision}.txt").write_text(program(config.load(name), precision))
    python = ROOT / "build" / "gpu-compile" / "bin" / "python"
    command = [python, HERE / "compiler.py", folder, *(HERE / f"{target}.txtpb" for target in TARGETS)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    said = map(json.loads, ran.stdout.splitlines())
    return {(*one["program"].split("."), one["target"]): one for one in said}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("recipe", config.names())
@pytest.mark.parametrize("half", [False, True], ids=["float32", "half"])
def test_an_epoch_compiles_to_one_loop_of_few_kernels(compiled: Compiled, recipe: str, half: bool, target: str) -> None:
    one = compiled[recipe, gpu_precision(TARGETS[target]) if half else "float32", target]
    batch = config.load(recipe).training.batch_size
    # A loop whose end is not known makes the host wait for the GPU in each step, as would a call of the host.
    assert [loop["trip_count"] for loop in one["loops"]] == [-(-IMAGES // batch)]
    assert set(one["calls"]) <= LIBRARY
    (loop,) = one["loops"]
    assert not set(loop["launches"]) & {"infeed", "outfeed", "recv", "send"}
    assert sum(loop["launches"].values()) <= KERNELS[recipe][half], loop["launches"]
