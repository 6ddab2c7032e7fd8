#!/bin/sh
# Remove from a virtual environment what no job opens.
# usage: finish.sh VENV
set -eu
"$(dirname "$0")/link_cusolver.sh" "$1"
cd "$1"/lib/python3*/site-packages

# Headers, static libraries, tests, a C++ parser, debug symbols.
rm -rf tensorflow/include clang nvidia/*/include
find . -name '*.a' -delete
find . -type d -name tests -prune -exec rm -rf {} +
find tensorflow -name '*.so*' -exec strip --strip-unneeded {} +

[ -d nvidia ] || exit 0
# CUDA libraries that neither TensorFlow nor another CUDA library opens.
rm -rf nvidia/curand nvidia/nccl/lib/libnccl_device.* nvidia/cuda_nvrtc/lib/*.alt.so.*
rm -f nvidia/cusolver/lib/libcusolverMg.so.* nvidia/cufft/lib/libcufftw.so.* nvidia/cublas/lib/libnvblas.so.*
