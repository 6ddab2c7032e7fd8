#!/bin/sh
# Put cuSOLVER where TensorFlow 2.21 looks for it: in the folder of another of the CUDA libraries, since its own is not
# among those that it knows. Without it TensorFlow does without GPUs, and hardly says so.
# usage: link_cusolver.sh VENV
set -eu
cd "$1"/lib/python3*/site-packages
[ -d nvidia/cusolver ] || exit 0
ln -sf ../../cusolver/lib/libcusolver.so.11 nvidia/cusparse/lib/
