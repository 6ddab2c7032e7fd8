"""What a site or a user's other work has set does not change a result: one list, settled before anything else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist import environment


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """For tests that settle this process's environment: afterwards it is as before."""
    monkeypatch.setattr(environment, "_original", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return monkeypatch


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1"]),
        ("1,0", ["1", "0"]),
        ("1", ["1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,7,1", ["0"]),
        ("GPU-ab12", ["GPU-ab12"]),
        ("MIG-ab12,GPU-cd", ["MIG-ab12", "GPU-cd"]),
    ],
)
def test_the_gpus_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None, expected: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment._gpus_of_the_machine.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    if not Path("/proc/driver/nvidia/gpus").exists():
        assert environment.gpus() == []
    environment._gpus_of_the_machine.cache_clear()
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-ab12)'; echo '  MIG 1g'; echo 'GPU 1: H100 (UUID: GPU-cd)'\n"
    )
    tool.chmod(0o755)
    assert environment.gpus() == expected
    environment._gpus_of_the_machine.cache_clear()


def test_each_variable_is_set_removed_or_kept(settled: pytest.MonkeyPatch) -> None:
    given = {variable.pattern.replace("*", "X"): "given" for variable in environment.VARIABLES}
    os.environ.clear()
    os.environ.update(given)
    environment.settle()
    for variable in environment.VARIABLES:
        now = os.environ.get(variable.pattern.replace("*", "X"))
        expected = {"set": variable.value, "kept": "given", "removed": None}[variable.action]
        # What is meant for XLA takes the place of what was set for all programs.
        assert now == ("given" if variable.pattern == "XLA_FLAGS" else expected), variable
    assert environment.original() == given
    assert environment.ignored() == ["NVIDIA_TF32_OVERRIDE", "TF_XLA_FLAGS", "XLA_FLAGS"]
    assert environment.recorded().keys() >= {environment.XLA_FLAGS, "TF_ENABLE_ONEDNN_OPTS"}


def test_a_sites_packages_come_after_those_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the site has another NumPy')")
    (tmp_path / "of_the_site.py").write_text("print('found')")
    code = "from fmnist import environment; environment.settle(); import numpy, of_the_site"
    for path in (str(tmp_path), os.pathsep.join([str(tmp_path), *filter(None, sys.path)])):
        ended = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert (ended.stdout, ended.returncode) == ("found\n", 0), ended.stderr


def test_the_docs_hold_the_list() -> None:
    page = Path(__file__).parent.parent / "docs" / "environment.md"
    assert environment.table() in page.read_text(encoding="utf-8"), "python -m fmnist.environment prints it"
