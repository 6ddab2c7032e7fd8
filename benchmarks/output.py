"""What a benchmark leaves: a table for people, a JSON file with every sample."""

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmnist.files import write_json

from .table import Figure, render, to_dict

logger = logging.getLogger(__name__)


def options(name: str, description: str | None, pairs: int | None = None) -> argparse.ArgumentParser:
    """A benchmark's options, which it may add to, and its log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=description)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the JSON file [%(default)s]")
    if pairs:
        parser.add_argument("--pairs", type=int, default=pairs, help="samples of each alternative [%(default)s]")
    return parser


def publish(name: str, here: dict[str, Any], figures: Sequence[Figure], folder: Path, **more: Any) -> None:
    """Print the figures that were measured on `here` (`machine.describe`), and write them to `folder`."""
    print(_heading(here), render(figures), sep="\n\n")
    path = folder / f"bench-{name}-{here['kind']}.json"
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"machine": here, "command": shlex.join(["python", "-m", "benchmarks", *sys.argv]), "ended": ended}
    write_json(path, {**told, "figures": [to_dict(figure) for figure in figures], **more})
    logger.info("%s", path)


def _heading(here: dict[str, Any]) -> str:
    """Describe what the table was measured on, in one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return (
        f"{here['date']}, revision {here['revision']}. {here['cpu']}, {here['cores']} cores "
        f"({', '.join(here['flags'])}), load {here['load_before']:.1f} before.\n"
        f"Devices: {here['devices']}.\n{versions}.\n"
        "Samples are taken in pairs, one after the other; the median and the spread are of the pairs' ratios."
    )
