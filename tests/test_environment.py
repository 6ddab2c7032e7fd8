"""What a site or a user's other work has set does not change a result: one list, settled before anything else."""

import hashlib
import json
import os
import re
import signal
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import FIXED, Command, Start, end
from processes import program, python
from test_signals import signal_at

from fmnist import environment
from fmnist.recipe import config
from fmnist.run.folder import RunDir, read_trials


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
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        assert environment.gpus() == []
    environment._gpus_of_the_machine.cache_clear()
    gpus = "echo 'GPU 0: H100 (UUID: GPU-ab12)'; echo '  MIG 1g'; echo 'GPU 1: H100 (UUID: GPU-cd)'"
    program(tmp_path / "nvidia-smi", f"#!/bin/sh\n{gpus}\n")
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
        # What is meant for XLA here comes after what is set.
        assert now == (f"{expected} given" if variable.pattern == "XLA_FLAGS" else expected), variable
    assert environment.original() == given
    assert environment.ignored() == ["NVIDIA_TF32_OVERRIDE", "TF_XLA_FLAGS", "XLA_FLAGS"]
    assert environment.recorded().keys() >= {environment.XLA_FLAGS, "TF_ENABLE_ONEDNN_OPTS"}
    # What a process sets says nothing to a child that inherits it.
    environment.settle()
    assert environment.ignored() == []


def test_a_sites_packages_come_after_those_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the site has another NumPy')")
    (tmp_path / "of_the_site.py").write_text("print('found')")
    code = "from fmnist import environment; environment.settle(); import numpy, of_the_site"
    for path in (str(tmp_path), os.pathsep.join([str(tmp_path), *filter(None, sys.path)])):
        ended = python(code, env={**os.environ, "PYTHONPATH": path})
        assert (ended.stdout, ended.returncode) == ("found\n", 0), ended.stderr


SEARCHED = """
description = "whitened, so that linear algebra on the processor takes part"
[data]
train_limit = 2000
[model]
hidden = [16]
whitening = 0.1
[training]
epochs = 2
[search]
trials = 2
epochs = 1
[search.space]
"training.learning_rate" = { min = 1e-3, max = 1e-2, sampling = "log" }
"""
KERAS_JSON = '{"backend": "torch", "floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
AMBIENT = {
    "KERAS_BACKEND": "torch",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "TF_USE_LEGACY_KERAS": "1",
    "TF2_BEHAVIOR": "0",
    "TF_CONFIG": '{"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}',
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "TF_CPP_MAX_VLOG_LEVEL": "1",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "NVIDIA_TF32_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "ONEDNN_VERBOSE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
    "CUDA_VISIBLE_DEVICES": "0",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "GRPC_VERBOSITY": "debug",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "FORCE_COLOR": "1",
    "LC_ALL": "C",
}


# Whatever devices a variable shows.
TRAIN = ("train", "--devices", "cpu")


def train_here(folder: Path, start_anew: Start, **env: str) -> tuple[object, ...]:
    """What a training comes to: the hash of its weights, its scores; each line of stderr is fmnist's."""
    folder.mkdir(exist_ok=True)
    (folder / "fixed.toml").write_text(SEARCHED.partition("[search]")[0])
    ended = end(start_anew(folder, *TRAIN, "--recipe", "fixed.toml", "--run", "run", "--quiet", **env), 0)
    assert re.fullmatch(r"validation accuracy 0\.\d{4}, epoch 2 of 2; run/model\.keras\n", ended.stdout)
    assert ended.stderr == ""
    return outcome(folder / "run")


def outcome(run: Path) -> tuple[object, ...]:
    with zipfile.ZipFile(run / "model.keras") as model:
        weights = hashlib.sha256(model.read("model.weights.h5")).hexdigest()
    history = json.loads((run / "history.json").read_text())["history"]
    return weights, {name: values for name, values in history.items() if name != "seconds"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start_anew: Start) -> tuple[object, ...]:
    return train_here(tmp_path_factory.mktemp("undisturbed"), start_anew)


@pytest.mark.faults
@pytest.mark.parametrize("name", [*AMBIENT, "HOME", "KERAS_HOME"])
def test_an_ambient_variable_changes_no_weight_and_no_score(
    name: str, tmp_path: Path, start_anew: Start, undisturbed: tuple[object, ...]
) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(KERAS_JSON)
    homes = {"HOME": str(tmp_path), "KERAS_HOME": str(tmp_path / ".keras")}
    assert train_here(tmp_path / "here", start_anew, **{name: {**AMBIENT, **homes}[name]}) == undisturbed
    ignored = json.loads((tmp_path / "here" / "run" / "config.json").read_text())["jobs"]["train"]["ignored"]
    assert ignored == [name] * (name in ("XLA_FLAGS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"))


@pytest.mark.faults
def test_all_of_them_at_once_change_no_search_and_no_training(tmp_path: Path, start_anew: Start) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(KERAS_JSON)
    found = []
    for name, env in (("plain", {}), ("ambient", {**AMBIENT, "HOME": str(tmp_path)})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "searched.toml").write_text(SEARCHED)
        for job in (("tune", "--workers", "2", "--devices", "cpu"), TRAIN):
            ended = end(start_anew(folder, *job, "--recipe", "searched.toml", "--run", "run", **env), 0)
            # Long lines go on below, after two blanks.
            own = r"tune|train|trial|best|epoch|the chief|waiting|not used|going on|validation accuracy|  \S"
            said = [*ended.stderr.splitlines(), *ended.stdout.splitlines()]
            assert [line for line in said if not re.match(own, line)] == []
        trials = read_trials(folder / "run" / "trials.csv")
        table = sorted((row["score"], row["training.learning_rate"]) for row in trials)
        found.append((table, outcome(folder / "run")))
    assert found[0] == found[1]


def test_what_changes_numbers_is_recorded(run: Path, tmp_path: Path) -> None:
    for job, facts in json.loads((tmp_path / run / "config.json").read_text())["jobs"].items():
        assert facts["instruction_sets"], job
        assert facts["onednn"] in (True, False)
        assert facts["threads"] == len(os.sched_getaffinity(0))
        assert facts["environment"].keys() <= {"TF_ENABLE_ONEDNN_OPTS", "OPENBLAS_CORETYPE"}


def one_processor_and_one_epoch() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    signal_at("epoch 1/2", signal.SIGTERM)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_a_training_that_goes_on_with_more_processors_says_so(tmp_path: Path, fmnist: Command) -> None:
    """They divide large products in another way, and so round otherwise."""
    train = ("train", *FIXED, "--set", "training.epochs=2")
    fmnist(*train, prepare=one_processor_and_one_epoch, code=75)
    assert "train goes on, but began with other threads" in fmnist(*train).stderr


def test_a_job_that_goes_on_elsewhere_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(config.load("smoke"), 0)
    here, there = {"instruction_sets": ["avx2"], "onednn": False}, {"instruction_sets": ["amx"], "onednn": True}
    for number, numerics in enumerate((here, here, there, there)):
        run.record("train", devices="1 CPU", data={}, numerics=numerics, goes_on=number > 0)
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "began with other instruction_sets and onednn" in warning
    assert "its numbers may differ" in warning
    (began,) = json.loads(run.config.read_text())["jobs"]["train"]["went_on_from"]
    assert began["instruction_sets"] == ["avx2"]
    # A training that begins anew is of this machine alone.
    run.record("train", devices="1 CPU", data={}, numerics=here)
    assert "went_on_from" not in json.loads(run.config.read_text())["jobs"]["train"]
