"""Choose the devices, the strategy, the precision and the compilation (XLA or not) of a training."""

import contextlib
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist import environment
from fmnist.errors import BadInput, GpuFailed, first_line, gpu_failed
from fmnist.memory import lasting

# TensorFlow takes seconds to import, so each function imports it itself: a job's input is checked before that.
if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
_INSTRUCTION_SETS = re.compile(r"sse4|avx|fma|f16c|amx|asimd|sve|bf16|i8mm")


@dataclass(frozen=True)
class Devices:
    """The devices of this process. They are chosen once: TensorFlow cannot change them after its first operation.

    kind: "cpu" or "gpu".
    names: the names of the logical devices, for example ("CPU:0",).
    precision: the Keras dtype policy to train in.
    hardware: the model name of the processor, or of the first GPU.
    optional: whether a training may do with the first one, where several do not pay.
    free_precision: whether nobody asked for the precision, so that a training may go on in that in which it began.
    has_tf32: whether these GPUs multiply float32 in the less precise TensorFloat-32, unless they are told not to.
    """

    kind: str
    names: tuple[str, ...]
    precision: str
    hardware: str
    optional: bool = False
    free_precision: bool = False
    has_tf32: bool = False

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def xla(self) -> bool:
        """Whether XLA compiles an epoch of training. Only on one device: under a strategy it cannot place variables.

        Measured on 2 cores (AVX2), 512-256-50 with batch normalisation and dropout, batch 128: 42,000 images/s with
        XLA, 22,000 without (`make bench` measures it again).
        """
        return self.count == 1

    @property
    def usual(self) -> "Devices":
        """The first one alone, where a training may do with it; else all."""
        return dataclasses.replace(self, names=self.names[:1], optional=False) if self.optional else self

    @cached_property
    def strategy(self) -> "tf.distribute.Strategy | None":
        """The process's MirroredStrategy; None for one device, which is faster without a strategy."""
        import tensorflow as tf

        if self.count == 1:
            return None
        # Between logical CPU devices, collective operations take twice the time of a step.
        operations = tf.distribute.ReductionToOneDevice() if self.kind == "cpu" else None
        return tf.distribute.MirroredStrategy(list(self.names), cross_device_ops=operations)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the scope in which to create variables."""
        import tensorflow as tf

        return self.strategy.scope() if self.strategy else tf.device(self.names[0])

    @contextlib.contextmanager
    def at_fault(self) -> Iterator[None]:
        """Raise GpuFailed in place of what TensorFlow raises where a GPU fails."""
        try:
            yield
        except Exception as error:
            if self.kind == "gpu" and gpu_failed(error):
                raise GpuFailed(f"the GPU failed: {first_line(error)}") from error
            raise

    def __str__(self) -> str:
        import tensorflow as tf

        precision = self.precision
        if self.has_tf32 and "float32" in precision and tf.config.experimental.tensor_float_32_execution_enabled():
            precision += " (TF32 matrix products)"
        how = "compiled by XLA" if self.xla else f"MirroredStrategy over {self.count}, not compiled by XLA"
        return f"{self.count} {self.kind.upper()} ({self.hardware}), {precision}, {how}"


def request(devices: str = "auto", precision: str = "auto") -> Callable[[], Devices]:
    """Check both options, and return a function that calls `choose` with them, to be used once TensorFlow is needed.

    Raises:
        BadInput: an option has a value that `choose` does not know.
    """
    if precision not in PRECISIONS:
        raise BadInput(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")
    if not re.fullmatch(r"auto|cpu(:[1-9][0-9]{0,2})?|gpu|[1-9][0-9]{0,2}", devices):
        raise BadInput(f"--devices {devices}: write auto, cpu, gpu, a number of GPUs, or cpu:N")
    return partial(choose, devices, precision)


def choose(devices: str = "auto", precision: str = "auto") -> Devices:
    """Choose the devices and the precision. Call this before TensorFlow's first operation.

    Args:
        devices: "auto" (all GPUs, of which a training may take one, else the CPU), "cpu", "gpu", a number of GPUs, or
            "cpu:N" for N logical CPU devices.
        precision: one of PRECISIONS.

    Raises:
        BadInput: this machine lacks the device, or an option has an unknown value.
    """
    with lasting():
        import tensorflow as tf

    request(devices, precision)
    gpus = [] if devices.startswith("cpu") else tf.config.list_physical_devices("GPU")
    wanted = int(devices) if devices.isdigit() else len(gpus) or (devices == "gpu")
    if wanted > len(gpus):
        raise BadInput(f"--devices {devices}: this machine shows {len(gpus)} GPU(s) to TensorFlow; try --devices cpu")
    if gpus:
        return _gpus(gpus[:wanted], precision, optional=devices == "auto")
    if devices == "auto" and (there := environment.gpus()):
        logger.warning(
            "TensorFlow sees none of the %d NVIDIA GPU(s) that this job may use: it lacks CUDA's libraries, or a newer "
            "driver, or this container was not given them",
            len(there),
        )
    return _cpus(int(devices.partition(":")[2] or 1), precision)


def on_gpu() -> bool:
    """Tell whether this process computes on a GPU; TensorFlow is not imported for that."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and bool(tf.config.get_visible_devices("GPU"))


def inventory() -> list[str]:
    """Return a line for each device of the machine: the processor, then the GPUs that TensorFlow sees."""
    import tensorflow as tf

    model, flags = cpuinfo()
    fast = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
    lines = [f"CPU: {model}, {len(os.sched_getaffinity(0))} processors, {', '.join(fast) or 'no AVX2'}"]
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        lines.append(f"{gpu.name.removeprefix('/physical_device:')}: {details.get('device_name')}, {capability}")
    return lines if len(lines) > 1 else [*lines, "GPU: none that TensorFlow sees"]


def _gpus(gpus: list[Any], precision: str, *, optional: bool) -> Devices:
    import tensorflow as tf

    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        # Leave the rest of the memory to other processes.
        tf.config.experimental.set_memory_growth(gpu, True)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capability = min(detail.get("compute_capability", (0, 0)) for detail in details)
    return Devices(
        kind="gpu",
        names=tuple(f"GPU:{index}" for index in range(len(gpus))),
        precision=gpu_precision(capability) if precision == "auto" else precision,
        hardware=details[0].get("device_name", "unnamed"),
        optional=optional and len(gpus) > 1,
        free_precision=precision == "auto",
        has_tf32=capability >= (8, 0),
    )


def gpu_precision(capability: tuple[int, int]) -> str:
    """Return the Keras dtype policy that "auto" means on a GPU of that compute capability."""
    if capability >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= (7, 0) else "float32"


def _cpus(count: int, precision: str) -> Devices:
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    model, _ = cpuinfo()
    return Devices(
        kind="cpu",
        names=tuple(f"CPU:{index}" for index in range(count)),
        # On a CPU, XLA converts half-precision products to float32: 0.85 to 1.0 times float32's speed, with AMX.
        precision="float32" if precision == "auto" else precision,
        hardware=model,
        free_precision=precision == "auto",
    )


def numerics() -> dict[str, Any]:
    """Return what rounding depends on: the processor, its instruction sets, the threads, and whether oneDNN is on.

    Threads divide large matrix products of processors, and so decide in which order these are summed.
    """
    # TensorFlow decides about oneDNN by processor and environment variable; no public function tells the outcome.
    from tensorflow.python.util import _pywrap_util_port

    model, flags = cpuinfo()
    wanted = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    # TensorFlow takes whatever else for none.
    threads = int(wanted) if re.fullmatch("[1-9][0-9]{0,3}", wanted) else len(os.sched_getaffinity(0))
    return {
        "processor": model,
        "instruction_sets": sorted(flag for flag in flags if _INSTRUCTION_SETS.match(flag)),
        **({} if on_gpu() else {"threads": threads}),
        "onednn": bool(_pywrap_util_port.IsMklEnabled()),
    }


def cpuinfo() -> tuple[str, set[str]]:
    """Return the processor's name ("unnamed" if the system does not tell) and its feature flags."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        # ARM calls the flags `Features`.
        fields = dict(re.findall(r"^(model name|flags|Features)\s*: (.*)$", text, re.MULTILINE))
        flags = fields.get("flags") or fields.get("Features", "")
        return fields.get("model name", "unnamed"), set(flags.split())
    return "unnamed", set()
