"""Find the files of a data set in a folder, whatever their packager named them and however deep they were unpacked.

MNIST's own names are train-images-idx3-ubyte and so on, with or without `.gz`. Other packagers write a dot for a
hyphen, write `test` for `t10k`, begin with the data set's name, or put each file into a folder of its own name. The
content of a file is checked by `idx`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, NoReturn

from fmnist.errors import BadInput
from fmnist.text import printable

PARTS = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
"""The names that fmnist uses for each part's files: images, then labels."""

_NAME = re.compile(
    r"(?:(?P<prefix>.+)[-_. ])?(?P<part>train|t10k|test)[-_. ](?P<kind>image|label)s?"
    r"(?:[-_. ](?:idx\d?|ubyte|byte|int|gz))*",
    re.IGNORECASE,
)
# Folders that separate the files of one data set, rather than data sets.
_WITHIN = re.compile(rf"train|t10k|test|{_NAME.pattern.replace('?P<', '?P<_')}", re.IGNORECASE)
_DEEPEST = 4
_MOST_ENTRIES = 10_000
_SHOWN = 4


class _Set(NamedTuple):
    """What the files of one data set have in common: their folder, and the beginning of their names."""

    folder: tuple[str, ...]
    prefix: str


_Files = dict[str, list[Path]]


class Missing(BadInput):
    """A folder lacks a file of the data set."""


def find(directory: Path, parts: Sequence[str]) -> _Files:
    """Find the files of `parts` of the data set in `directory`, or of the only one in its subfolders; open none.

    Returns:
        The paths of each file, by the names in PARTS: more than one if it is there, say, both compressed and not.

    Raises:
        Missing: a file is missing.
        BadInput: `directory` is not a folder, or there are several data sets.
    """
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"{directory} is a file, not a folder: unpack it if it is an archive, and name the folder")
    sets = _nearest(_sets(directory))
    wanted = [file for part in parts for file in PARTS[part]]
    prefixes = {key.prefix for key in sets}
    for file in wanted:
        having = [files for files in sets.values() if file in files]
        if not having:
            raise Missing(f"no {file}.gz in {directory}{_holding(directory)}")
        if len(prefixes) > 1 or len(having) < len(sets):
            refuse_several(
                directory, [next(iter(files.get(file) or chain(*files.values()))) for files in sets.values()]
            )
    return {file: [path for files in sets.values() for path in files[file]] for file in wanted}


def refuse_several(directory: Path, paths: Sequence[Path]) -> NoReturn:
    """Raise BadInput, because each of `paths` belongs to another data set."""
    names = [printable(path.relative_to(directory)) for path in paths]
    raise BadInput(
        f"{directory} holds several data sets ({_enumeration(names)}); "
        "name the folder of one, or make one with links to its files"
    )


def _sets(directory: Path) -> dict[_Set, _Files]:
    sets: dict[_Set, _Files] = defaultdict(dict)
    for path, folders in islice(_walk(directory), _MOST_ENTRIES):
        if named := _NAME.fullmatch(path.name):
            part = "train" if named["part"].lower() == "train" else "t10k"
            file = PARTS[part][named["kind"].lower() == "label"]
            folder = tuple(name for name in folders if not _WITHIN.fullmatch(name))
            sets[_Set(folder, (named["prefix"] or "").lower())].setdefault(file, []).append(path)
    return sets


def _nearest(sets: dict[_Set, _Files]) -> dict[_Set, _Files]:
    """Return the least deep of the sets that have images with labels; all sets if none has both."""
    paired = {key: files for key, files in sets.items() if any(files.keys() >= set(pair) for pair in PARTS.values())}
    depth = min((len(key.folder) for key in paired), default=None)
    return sets if depth is None else {key: files for key, files in paired.items() if len(key.folder) == depth}


def _walk(directory: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield all below `directory` that is not a folder, with the names of the folders between, the least deep first."""
    level: list[tuple[Path, tuple[str, ...]]] = [(directory, ())]
    for _ in range(_DEEPEST + 1):
        deeper = []
        for folder, names in level:
            for entry in _entries(folder, must=folder == directory):
                if os.path.isdir(entry):
                    deeper.append((Path(entry), (*names, entry.name)))
                else:
                    yield Path(entry), names
        level = deeper


def _entries(folder: Path, must: bool = False) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            # Hidden files are leftovers of an interrupted write or of another system's archiver.
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        # Skip subfolders that cannot be read, such as another user's.
        if must:
            raise BadInput(f"{folder} cannot be read: {error.strerror}") from error
        return []


def _holding(directory: Path) -> str:
    if not directory.exists():
        return ", which does not exist"
    names = [printable(entry.name) + "/" * os.path.isdir(entry) for entry in _entries(directory)]
    return f", which holds {_enumeration(names)}" if names else ", which is empty"


def _enumeration(names: Sequence[str]) -> str:
    *most, last = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN + 1 else names
    return f"{', '.join(most)} and {last}" if most else last
