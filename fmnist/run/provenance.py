"""What a job runs with, for the record: the software, the machine, the devices, what its numbers depend on."""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from fmnist import __version__, environment
from fmnist.revision import revision

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "keras-tuner", "scikit-learn", "numpy", "tensorboard")
# By none of these can two processes of a job round otherwise.
_INDIFFERENT = ("machine",)


def decisive(devices: str, numerics: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers may depend on; `numerics` as `devices.numerics` tells it. The machine's name is with it."""
    return {
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "devices": devices,
        **numerics,
        "environment": environment.recorded(),
    }


def differences(facts: Mapping[str, Any], began: Mapping[str, Any]) -> list[str]:
    """The names of what is decisive and other than in the record of an earlier process."""
    return [name for name in facts if name not in _INDIFFERENT and facts[name] != began.get(name)]


def now() -> dict[str, Any]:
    """When the job began, and which code it is of."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "revision": revision(),
        "image": os.environ.get("FMNIST_IMAGE"),
    }


def versions() -> dict[str, str]:
    """Of what computes the results, by package."""
    found = {"fmnist": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
