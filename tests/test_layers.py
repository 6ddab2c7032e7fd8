"""The order of the rooms: data flows down the list, and no import goes back up it."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import python

import fmnist

PACKAGE = Path(fmnist.__file__).parent
FLOORS = [
    {"__init__"},
    {
        "arrays", "chatter", "devices", "environment", "errors", "files", "memory", "progress", "revision", "signals",
        "text",
    },
    {"recipe"},
    {"run"},
    {"data"},
    {"network"},
    {"training"},
    {"search"},
    {"evaluation"},
    {"report"},
    {"study"},
    {"cli"},
    {"__main__"},
]  # fmt: skip
"""From the ground up. A room is a package, or a module beside them."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"numpy", "scipy", "sklearn", "tensorflow", "keras", "keras_tuner"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module: Path) -> Iterator[str]:
    """The dotted name of everything that a module imports, at whatever depth of its code."""
    package = ["fmnist", *module.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def mentions(module: Path, name: str) -> bool:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if name in (getattr(node, "id", None), getattr(node, "attr", None)):
            return True
        if isinstance(node, ast.alias) and node.name == name:
            return True
    return False


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_lower_room_imports_an_upper_one(module: Path) -> None:
    room = room_of(module)
    assert room in FLOOR, f"{module} has no place in the order of rooms"
    names = [name.split(".") for name in imported(module) if name.startswith("fmnist.")]
    assert {upper for _, upper, *_ in names if FLOOR.get(upper, 0) > FLOOR[room]} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts) for module in MODULES}
    imports = {}
    for module in MODULES:
        found = {part for name in imported(module) for part in (name, name.rpartition(".")[0])}
        imports[".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts)] = found & names
    graphlib.TopologicalSorter(imports).prepare()


def test_only_search_imports_keras_tuner() -> None:
    importers = {room_of(module) for module in MODULES for name in imported(module) if name.startswith("keras_tuner")}
    assert importers == {"search"}
    private = {module.stem for module in MODULES for name in imported(module) if name.startswith("keras_tuner.src")}
    assert private == {"stock"}


def test_only_what_judges_a_finished_model_reads_the_test_set() -> None:
    readers = {room_of(module) for module in MODULES if mentions(module, "load_test")}
    assert readers == {"evaluation"}


@pytest.mark.parametrize("module", ["fmnist.cli.app", "fmnist.search.status"])
def test_what_answers_at_once_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    assert HEAVY & set(python(script, check=True).stdout.split()) == set()
