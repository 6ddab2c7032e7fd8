"""Write mount options for container engines, with each path the same as on the host. Standard library only."""

import csv
import io


def mount(path: str, *options: str) -> str:
    """Return a bind mount of `path` for the option `--mount` of Docker, Podman (4.2 or newer) and Apptainer."""
    return _line("type=bind", f"source={path}", f"target={path}", *options)


def empty(path: str) -> str:
    """Return an empty folder that nobody can write into, for the option `--mount` of Docker and Podman."""
    return _line("type=tmpfs", f"target={path}", "tmpfs-mode=0555")


def _line(*fields: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
