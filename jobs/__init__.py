"""Launch the jobs: in containers on one host, on Slurm, on Kubernetes."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    # Before a module is read that such a Python cannot read. The exit code is that of bad input.
    sys.stderr.write("fmnist: jobs need Python 3.10 or newer; name one: make PYTHON3=python3.12\n")
    sys.exit(64)
