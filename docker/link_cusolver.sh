#!/bin/sh
# Link cuSOLVER into a folder where TensorFlow 2.21 looks for it: another CUDA library's, since it does not look into
# cuSOLVER's own. Without cuSOLVER, TensorFlow uses no GPU, and hardly says so.
# usage: link_cusolver.sh VENV
set -eu
cd "$1"/lib/python3*/site-packages
[ -d nvidia/cusolver ] || exit 0
ln -sf ../../cusolver/lib/libcusolver.so.11 nvidia/cusparse/lib/
