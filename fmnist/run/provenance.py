"""Collect what a job runs with, for the record: the software, the machine, the devices and other influences."""

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
# Differences in these do not change how a job's numbers are rounded.
_INDIFFERENT = ("machine",)


def decisive(devices: str, numerics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the numbers may depend on, and the kind of machine; `numerics` is from `devices.numerics`."""
    return {
        "revision": revision(),
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "devices": devices,
        **numerics,
        "environment": environment.recorded(),
    }


def differences(facts: Mapping[str, Any], began: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts that may change the numbers and differ from an earlier process's record."""
    return [name for name in facts if name not in _INDIFFERENT and facts[name] != began.get(name)]


def now() -> dict[str, Any]:
    """Return the current time as the job's start, and the image of the code."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "image": os.environ.get("FMNIST_IMAGE"),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute the results, by name."""
    found = {"fmnist": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
