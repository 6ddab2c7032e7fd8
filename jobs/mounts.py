"""How container engines are told what a job sees of the host, each path as the host has it. Standard library only."""

import csv
import io


def mount(path: str, *options: str) -> str:
    """Return a bind mount of `path` as `--mount` takes it, of Docker, Podman (4.2 or newer) and Apptainer."""
    return _line("type=bind", f"source={path}", f"target={path}", *options)


def empty(path: str) -> str:
    """Return an empty folder that nobody can write into, as `--mount` takes it, of Docker and Podman."""
    return _line("type=tmpfs", f"target={path}", "tmpfs-mode=0555")


def _line(*fields: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
