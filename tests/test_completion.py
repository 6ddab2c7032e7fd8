"""What a shell is told to complete a command line with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fmnist export run --format ", "savedmodel tflite tflite-int8 onnx"),
        ("fmnist devices --precision m", "mixed_bfloat16 mixed_float16"),
        ("fmnist train --set training.early", "training.early_stopping.monitor= training.early_stopping.patience="),
        ("fmnist runs --sort s", "seed state size"),
        ("fmnist ru", "runs"),
    ],
)
def test_a_shell_completes(line: str, offered: str) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    ended = subprocess.run(
        [Path(sys.executable).with_name("fmnist")],
        env={**os.environ, **words, "_FMNIST_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout.split() == offered.split()
