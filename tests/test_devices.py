"""The choice of devices and precision, and what several devices give."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Command
from processes import program, python

from fmnist import devices
from fmnist.errors import first_line

# Batch normalisation, and an uneven last batch.
SETTINGS = "data.train_limit=2000 training.epochs=2 training.batch_size=96 model.batch_normalization=true"


@pytest.mark.parametrize(
    ("capability", "policy"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")],
)
def test_precision_follows_the_gpu(capability: tuple[int, int], policy: str) -> None:
    assert devices.gpu_precision(capability) == policy


def test_only_a_gpu_that_has_tf32_is_said_to_use_it() -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    assert "TF32" not in str(devices.Devices("gpu", ("GPU:0",), "float32", "T4"))
    newer = devices.Devices("gpu", ("GPU:0",), "float32", "A100", has_tf32=True)
    assert "float32 (TF32 matrix products)" in str(newer)


def test_the_command_says_what_would_be_chosen(fmnist: Command) -> None:
    assert re.search(r"chosen: 1 CPU .*, float32, compiled", fmnist("devices", "--devices", "cpu").stdout)
    several = fmnist("devices", "--devices", "cpu:3", "--precision", "mixed_float16").stdout
    assert "3 CPU" in several
    assert "mixed_float16" in several
    assert "MirroredStrategy" in several


def test_the_collector_passes_over_tensorflow_and_goes_on() -> None:
    code = "import gc; from fmnist import devices; devices.choose('cpu'); print(gc.get_freeze_count(), gc.isenabled())"
    frozen, enabled = python(code, check=True).stdout.split()
    assert int(frozen) > 100_000
    assert enabled == "True"


@pytest.mark.parametrize("choice", ["gpu", "3"])
@pytest.mark.parametrize("job", ["devices", "train --recipe baseline-mlp", "tune --recipe tiny.toml"])
def test_devices_that_are_not_there_leave_no_folder(tiny: Path, fmnist: Command, job: str, choice: str) -> None:
    (line,) = fmnist(*job.split(), "--devices", choice, CUDA_VISIBLE_DEVICES="-1", code=64).stderr.splitlines()
    assert line.startswith(f"fmnist: --devices {choice}: this machine shows 0 GPU(s)")
    assert "--devices cpu" in line
    assert not (tiny / "results").exists()


def test_several_devices_equal_one(fmnist: Command, tmp_path: Path) -> None:
    options = [f"--set={setting}" for setting in SETTINGS.split()]
    weights = []
    for choice in ("cpu", "cpu:2", "cpu:4"):
        run = tmp_path / choice.replace(":", "")
        fmnist("train", "--recipe", "baseline-mlp", *options, "--run", run, "--devices", choice)
        weights.append(keras.models.load_model(run / "model.keras").get_weights())
    for several in weights[1:]:
        for one, other in zip(weights[0], several, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("wanted", "threads"), [("3", 3), ("0", None), ("auto", None), ("2.0", None)])
def test_a_number_of_threads_that_tensorflow_does_not_take_counts_for_none(
    wanted: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", wanted)
    assert devices.numerics()["threads"] == (threads or len(os.sched_getaffinity(0)))


def test_gpus_that_tensorflow_does_not_see_are_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-ab)'\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    # By a name, so that a GPU of this machine is not meant.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab")
    code = (
        "import logging; from fmnist import devices; logging.basicConfig(format='%(message)s'); print(devices.choose())"
    )
    seen = python(code, check=True)
    assert seen.stdout.startswith("1 CPU")
    assert "TensorFlow sees none of the 1 NVIDIA GPU(s) that this job may use" in seen.stderr


def test_an_error_in_a_compiled_function_is_told_by_its_reason() -> None:
    gather = tf.function(tf.gather)
    with pytest.raises(tf.errors.InvalidArgumentError, match="^Graph execution error") as caught:
        gather(tf.ones(6), tf.constant([9]))
    assert first_line(caught.value).startswith("InvalidArgumentError: indices[0] = 9 is not in [0, 6)")
