"""Open every CUDA library that TensorFlow opens, without a GPU; the build runs this in the image.

TensorFlow's own loader opens them, by the names and in the folders that are compiled into it. The libraries that those
open in turn are then opened from where they lie.
"""

import ctypes
import importlib
import subprocess
import sys
import sysconfig
from pathlib import Path

# The names are those of the loader's functions. Its other libraries are the driver's, which come from the host, those
# of AMD, and TensorRT and NVSHMEM, which `tensorflow[and-cuda]` does not install.
OPENED = ("CudaRuntime", "Cublas", "CublasLt", "Cufft", "Cusolver", "Cusparse", "Cudnn", "Cupti", "Nccl")
PACKAGES = Path(sysconfig.get_path("purelib"))
NVIDIA = PACKAGES / "nvidia"
COMPILER = NVIDIA / "cuda_nvcc"


def main() -> None:
    if not NVIDIA.exists():
        return
    # As in a job: the library that loads the loader affects where it looks.
    importlib.import_module("tensorflow")
    loader = ctypes.CDLL(str(PACKAGES / "tensorflow" / "libtensorflow_framework.so.2"))
    missing = [name for name in OPENED if not opens(loader, f"Get{name}DsoHandle")]
    # TensorFlow calls this before it uses any GPU.
    if missing or not opens(loader, "MaybeTryDlopenGPULibraries"):
        sys.exit(f"TensorFlow cannot open all CUDA libraries: {' '.join(missing)}")
    for library in sorted(NVIDIA.glob("*/lib/*.so*")):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            # The driver's library comes from the host.
            if not str(error).startswith("libcuda.so.1:"):
                sys.exit(f"{library} cannot be opened: {error}")
    # What XLA needs: an assembler, and a library of device functions.
    subprocess.run([COMPILER / "bin" / "ptxas", "--version"], check=True, stdout=subprocess.DEVNULL)
    if not (COMPILER / "nvvm" / "libdevice" / "libdevice.10.bc").exists():
        sys.exit("libdevice is missing")
    print(f"TensorFlow opens its {len(OPENED)} CUDA libraries, and they theirs")


def opens(loader: ctypes.CDLL, function: str) -> bool:
    """Call a function of `tsl::internal::DsoLoader`, and return whether its status is OK."""
    # The caller passes memory for the returned absl::Status or absl::StatusOr<void*>; OK is 1.
    result = (ctypes.c_uint64 * 2)()
    getattr(loader, f"_ZN3tsl8internal9DsoLoader{len(function)}{function}Ev")(result)
    return result[0] == 1


if __name__ == "__main__":
    main()
