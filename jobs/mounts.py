"""How container engines are told a mount. Standard library only."""

import csv
import io


def mount(source: str, target: str, *options: str) -> str:
    """A bind mount as `--mount` takes it, of Docker, Podman (4.2 or newer) and Apptainer: a line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", *options])
    return line.getvalue()
