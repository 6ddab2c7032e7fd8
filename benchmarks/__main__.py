"""The front door: `python -m benchmarks` runs every benchmark, `python -m benchmarks NAME [OPTIONS]` one of them."""

import importlib
import os
import sys
from pathlib import Path

# What the tests share is imported as they do it.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# Each is a module of this package whose `main()` reads its options from sys.argv.
BENCHMARKS = ("speed", "search", "scale", "chief", "oracles", "quick", "several", "pictures")


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] not in BENCHMARKS:
        sys.exit(f"usage: python -m benchmarks [{' | '.join(BENCHMARKS)}] [OPTIONS]")
    # For the worker processes, before one of them imports TensorFlow.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in arguments[:1] or BENCHMARKS:
        sys.argv = [name, *arguments[1:]]
        importlib.import_module(f"{__package__}.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
