"""Settle the environment variables that a job's result must not depend on; one table says what is done with each.

A job's result depends on its recipe, seed, data and devices, not on variables that a site or a user has set for other
work. So `settle` runs first in every process, before any heavy import. `python -m fmnist.environment` prints
`VARIABLES` as the table of docs/environment.md. Standard library only.
"""

import contextlib
import functools
import itertools
import operator
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Variable:
    """An environment variable, or all that match a pattern, and what is done with it.

    pattern: as in `fnmatch`; if several patterns match a name, the first one counts.
    action: "set" to `value`, "removed", or "kept".
    recorded: whether config.json records it, because it may change numbers: its value if it is kept, else its name,
        where what was set is not used.
    """

    pattern: str
    action: Literal["set", "removed", "kept"]
    why: str
    value: str = ""
    recorded: bool = False


XLA_FLAGS = "FMNIST_XLA_FLAGS"
# Without Triton's matrix products, the first epoch on an H200 took half the time, and the others no longer.
_XLA_FLAGS = "--xla_gpu_enable_triton_gemm=false"

VARIABLES = (
    # Keras
    Variable("KERAS_BACKEND", "set", "the jobs are written for it", "tensorflow"),
    Variable("KERAS_HOME", "set", "a keras.json there could set another backend or precision", os.devnull),
    Variable("KERAS_*", "removed", "limits of epochs and steps, other backends, distribution"),
    # TensorFlow and XLA
    Variable("XLA_FLAGS", "set", "shortens compilation on GPUs; others change numbers", _XLA_FLAGS, recorded=True),
    Variable(XLA_FLAGS, "kept", "flags for XLA that are meant for fmnist, after that one", recorded=True),
    Variable("TF_XLA_FLAGS", "removed", "changes what is compiled, and so numbers", recorded=True),
    Variable("NVIDIA_TF32_OVERRIDE", "removed", "changes the precision of matrix products", recorded=True),
    Variable("TF_ENABLE_ONEDNN_OPTS", "kept", "1: oneDNN, 0: none; else it depends on the processor", recorded=True),
    Variable("TF_NUM_INT*_THREADS", "kept", "the number of TensorFlow's threads", recorded=True),
    Variable("TF_GPU_ALLOCATOR", "kept", "how a GPU's memory is allocated"),
    Variable("TF_GPU_THREAD_*", "kept", "which threads drive a GPU"),
    Variable("TF_CPP_MIN_LOG_LEVEL", "set", "only errors", "2"),
    Variable("TF_*", "removed", "changes numbers, what a program means, or what is printed"),
    Variable("TF2_BEHAVIOR", "removed", "0 makes TensorFlow 2 behave like TensorFlow 1"),
    Variable("ONEDNN_*", "removed", "changes numbers, or prints messages"),
    Variable("DNNL_*", "removed", "the same, under an earlier name"),
    Variable("AUTOGRAPH_*", "removed", "changes what a program means, or prints messages"),
    # NumPy, SciPy, scikit-learn, and the libraries below them
    Variable("OPENBLAS_CORETYPE", "kept", "the kernels of NumPy's and SciPy's linear algebra", recorded=True),
    Variable("OMP_DISPLAY_*", "removed", "prints messages"),
    Variable("MKL_VERBOSE", "removed", "prints messages"),
    Variable("*_NUM_THREADS", "kept", "threads of OpenBLAS and others; no result depends on their number"),
    Variable("NPY_*", "removed", "selects other kernels and other rules of type promotion"),
    Variable("SCIPY_ARRAY_API", "removed", "selects another library's arrays"),
    Variable("SKLEARN_*", "removed", "turns warnings into errors, or checks off"),
    # GPUs
    Variable("CUDA_VISIBLE_DEVICES", "kept", "which GPUs a job may use; means nothing on a machine without any"),
    Variable("NCCL_DEBUG*", "removed", "prints messages"),
    # The network
    Variable("*_proxy", "kept", "for the download of the data; never used between chief and workers"),
    Variable("*_PROXY", "kept", "the same"),
    Variable("GRPC_VERBOSITY", "set", "only errors", "ERROR"),
    Variable("GRPC_TRACE", "removed", "prints messages"),
    Variable("ORT_DISABLE_TELEMETRY", "set", "ONNX Runtime would collect usage data, and write them at home", "1"),
    # Python and the terminal
    Variable("PYTHONPATH", "kept", "searched after the packages that are installed with fmnist"),
    Variable("PYTHONWARNINGS", "removed", "turns warnings into errors, or prints them"),
    Variable("FORCE_COLOR", "removed", "treats a log as a terminal"),
    Variable("TTY_*", "removed", "the same"),
)

_original: dict[str, str] | None = None


def settle() -> None:
    """Set, remove or keep each variable as `VARIABLES` says; put PYTHONPATH's folders after the installed packages."""
    global _original
    _original = dict(os.environ)
    for name in list(os.environ):
        variable = _of(name)
        if variable and variable.action == "removed":
            del os.environ[name]
    for variable in VARIABLES:
        if variable.action == "set":
            os.environ[variable.pattern] = variable.value
    if flags := os.environ.get(XLA_FLAGS):
        # XLA takes the last of equal flags.
        os.environ["XLA_FLAGS"] += f" {flags}"
    _settle_python_path()


def original() -> dict[str, str]:
    """Return the environment as it was before `settle`, for a child process that calls `settle` itself."""
    return dict(os.environ if _original is None else _original)


def recorded() -> dict[str, str]:
    """Return the variables, with their values, that are set, kept as they are, and may change numbers."""
    return {name: value for name, value in sorted(original().items()) if _is_recorded(name, kept=True)}


def ignored() -> list[str]:
    """Return the names of the variables that were set, would change numbers, and are not used."""
    given = {name: value for name, value in original().items() if _is_recorded(name, kept=False)}
    # A parent of this process may have set what this one sets.
    return sorted(name for name, value in given.items() if os.environ.get(name) != value)


def gpus() -> list[str]:
    """Return CUDA's names of the GPUs that this process may use; none on a machine without GPUs.

    As in CUDA, the list ends before the first name in CUDA_VISIBLE_DEVICES that is not a GPU's.
    """
    there = _gpus_of_the_machine()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(there)))).split(",")
    known = (bool(there) and (name.startswith(("GPU-", "MIG-")) or name in map(str, range(there))) for name in names)
    return [name for name, _ in itertools.takewhile(operator.itemgetter(1), zip(names, known, strict=True))]


def free_gpu_memory() -> int:
    """Return the MiB that are free on the fullest of `gpus`, for several processes to share.

    It is 0 where a GPU serves one process alone, or is cut into parts (MIG), whose memory is not known.
    """
    asked = "--query-gpu=memory.free,compute_mode,mig.mode.current"
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        lines = _nvidia_smi(asked, "--format=csv,noheader,nounits", f"--id={','.join(gpus())}")
        answers = [line.split(", ") for line in lines]
        if all(mode == "Default" and mig != "Enabled" for _, mode, mig in answers):
            return min(int(free) for free, _, _ in answers)
    return 0


@functools.cache
def _gpus_of_the_machine() -> int:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return sum(line.startswith("GPU ") for line in _nvidia_smi("--list-gpus"))
    # A container may have GPUs without the tool. In /proc it would see those that it was not given, too.
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _nvidia_smi(*arguments: str) -> list[str]:
    asked = subprocess.run(["nvidia-smi", *arguments], capture_output=True, check=True, timeout=60)
    return asked.stdout.decode(errors="replace").splitlines()


def table() -> str:
    """Return `VARIABLES` as a table in Markdown."""
    lines = ["| variable | what is done with it | why | in config.json |", "| --- | --- | --- | --- |"]
    for variable in VARIABLES:
        action = f"set to `{variable.value}`" if variable.action == "set" else variable.action
        record = "" if not variable.recorded else "its value" if variable.action == "kept" else "its name"
        lines.append(f"| `{variable.pattern}` | {action} | {variable.why} | {record} |")
    return "\n".join(lines)


def _of(name: str) -> Variable | None:
    return next((variable for variable in VARIABLES if fnmatchcase(name, variable.pattern)), None)


def _is_recorded(name: str, *, kept: bool) -> bool:
    variable = _of(name)
    return variable is not None and variable.recorded and (variable.action == "kept") == kept


def _settle_python_path() -> None:
    """Move PYTHONPATH's folders to the end of sys.path: they may hold another Keras or NumPy than the installed one."""
    given = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    foreign = set(given) - {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    sys.path.sort(key=lambda entry: os.path.abspath(entry) in foreign)


if __name__ == "__main__":
    print(table())
