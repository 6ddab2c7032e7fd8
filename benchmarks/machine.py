"""What was measured on, and with what."""

import contextlib
import importlib.metadata
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from fmnist.devices import Devices, choose, cpuinfo

from .worker import cores

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def bfloat16_units(devices: Devices) -> bool:
    """Tell whether matrices of bfloat16 are multiplied as such."""
    if devices.kind == "gpu":
        return choose().precision == "mixed_bfloat16"
    return bool({"amx_bf16", "avx512_bf16"} & cpuinfo()[1])


def describe() -> dict[str, Any]:
    """Describe the machine, versions, date and revision; `kind` is as in `fmnist.devices.Devices`."""
    # One that has touched a GPU keeps memory on it.
    return alone(_describe)


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *args).result()


def _describe() -> dict[str, Any]:
    from fmnist.revision import revision
    from fmnist.run.provenance import versions

    devices = choose()
    cpu, flags = cpuinfo()
    packages = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        packages["torch"] = importlib.metadata.version("torch")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "revision": revision(),
        "kind": devices.kind,
        "devices": str(devices),
        "bfloat16": bfloat16_units(devices),
        "cpu": cpu,
        "cores": cores(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "load_before": os.getloadavg()[0],
        "versions": packages,
    }
