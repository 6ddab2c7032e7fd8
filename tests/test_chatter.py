"""Stderr is for a job's own words and for errors, whatever the compiled libraries say of themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import is_gone, python
from searching import until

PREAMBLE = """
import ctypes, os, sys
from fmnist import chatter
chatter.silence()
def say(text): os.write(2, text.encode())
"""
IDLE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795639676.687103    3726 port.cc:153] oneDNN custom operations are on. You may see slightly ...",
    "W0000 00:00:1795639676.687103    3726 gpu_device.cc:2342] Cannot dlopen some GPU libraries.",
    "I1125 20:40:25.123456  1234 chttp2_transport.cc:1182] ipv4:127.0.0.1:5000: keepalive",
    "2026-11-25 20:40:25.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is ...",
    "2026-11-25 20:40:25.123456: W external/local_xla/xla/tsl/platform/default/dso_loader.cc:59] Could not load",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate "
    "compiler flags.",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "2026-11-25 20:40:25.123456 [W:onnxruntime:, graph.cc:108 MergeShapeInfo] Error merging shape info",
    "E0000 00:00:1795639926.689861    6806 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    "call to cuInit: UNKNOWN ERROR (303)",
]
TOLD = [
    "E0000 00:00:1795639926.689861    6806 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    "call to cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "F0000 00:00:1795639926.689861    6806 tensor.cc:1] Check failed: 1 == 2",
    "2026-11-25 20:40:25.123456: E tensorflow/core/framework/op_kernel.cc:1] out of memory",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "Segmentation fault",
    "I/O error",
    "WARNING: this is of nobody we know",
    "Is this W0000 a warning?",
]


@pytest.mark.parametrize("end", ["\\n", ""], ids=["whole lines", "no end of the last line"])
def test_idle_talk_is_dropped_and_all_else_told_in_order(end: str) -> None:
    lines = [line for pair in zip(IDLE, TOLD + IDLE, strict=False) for line in pair]
    ended = python(PREAMBLE + f"say('\\n'.join({lines!r}) + '{end}'); print('done')")
    assert ended.stdout == "done\n"
    assert ended.stderr.splitlines() == TOLD
    assert ended.returncode == 0


def test_a_line_that_comes_in_pieces_is_judged_whole_and_one_without_an_end_is_told() -> None:
    ended = python(
        PREAMBLE + "import select\n"
        f"for piece in ({IDLE[1][:60]!r}, {IDLE[1][60:]!r} + chr(10)): say(piece); select.select([], [], [], 0.3)\n"
        "say('a prompt: '); select.select([], [], [], 0.3); say('answered')\n"
    )
    assert ended.stderr == "a prompt: answered"


def test_own_words_go_around_the_filter() -> None:
    ended = python(PREAMBLE + f"print({IDLE[1]!r}, file=sys.stderr); import warnings; warnings.warn('of a library')")
    assert ended.stderr == IDLE[1] + "\n"


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_still_shows_why(number: signal.Signals) -> None:
    ended = python(PREAMBLE + f"say({TOLD[1]!r} + chr(10)); getattr(ctypes.CDLL(None), 'raise')({int(number)})")
    assert ended.returncode == -number
    assert TOLD[1] in ended.stderr.splitlines()
    assert "Fatal Python error" in ended.stderr
    assert 'File "<string>"' in ended.stderr


def test_tensorflow_that_dies_still_shows_why() -> None:
    # A check within TensorFlow, which ends the process.
    code = "import tensorflow as tf; tf.raw_ops.Fill(dims=[2**40], value=1.0)"
    ended = python(PREAMBLE + f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); {code}")
    assert ended.returncode != 0
    assert any(word in ended.stderr for word in ("OOM", "bad_alloc", "ResourceExhausted", "Fatal", "allocat"))


def test_the_filter_ends_with_its_job_and_heeds_no_signal_of_the_group() -> None:
    code = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
say({TOLD[0]!r} + chr(10)); say({IDLE[0]!r} + chr(10))
print(chatter._child)
"""
    ended = python(PREAMBLE + code, start_new_session=True)
    assert ended.stderr.splitlines() == TOLD[:1]
    until(lambda: is_gone(int(ended.stdout)))


def test_a_killed_job_leaves_no_filter() -> None:
    ended = python(PREAMBLE + "print(chatter._child, flush=True); os.kill(os.getpid(), 9)")
    assert ended.returncode == -9
    until(lambda: is_gone(int(ended.stdout)))


def test_standard_files_that_are_closed_are_not_taken_for_others(tmp_path: Path) -> None:
    code = f"{PREAMBLE}\nfile = open({str(tmp_path / 'file')!r}, 'w'); say('noise'); print('own', file=sys.stderr)"
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, env=os.environ, timeout=60
    )
    assert (tmp_path / "file").read_text() == ""
