"""Print the reference of every key of a recipe, in Markdown, from the schema and the shipped recipes.

`python -m tools.recipe_keys` prints it; docs/recipes.md holds it.
"""

import dataclasses
import re
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fmnist.recipe import config
from fmnist.recipe.schema import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAMES = {bool: "true or false", int: "integer", float: "number", str: "text"}


def reference() -> str:
    """Return a heading and a table for each section."""
    used = _used()
    return "\n\n".join(_section(kind, prefix, used) for kind, prefix in _sections(Recipe, ""))


def _sections(kind: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    """Yield each dataclass of the schema, with the prefix of its keys."""
    yield kind, prefix
    for field in dataclasses.fields(kind):
        if section := _section_of(field.type):
            # The space holds a section for each key that is searched.
            yield from _sections(section, f"{prefix}{field.name}.{'KEY.' * (get_origin(field.type) is dict)}")


def _section(kind: Any, prefix: str, used: dict[str, list[str]]) -> str:
    meanings = _meanings(kind)
    title = f"`[{prefix[:-1]}]`" if prefix else "Above all sections"
    lines = [f"### {title}", "", _heading(kind), ""]
    lines += ["| key | type | range | unit | default | meaning | used by |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        # A recipe is named by its file.
        if _section_of(field.type) or (not prefix and field.name == "name"):
            continue
        unit, meaning = meanings[field.name]
        names = used.get(prefix + field.name, [])
        told = "all" if len(names) == len(config.names()) else ", ".join(names) or "–"
        cells = (f"`{field.name}`", *_describe(field.type), unit or "–", _default(field), meaning, told)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _section_of(kind: Any) -> Any:
    """Return the dataclass that a field holds, if it holds one."""
    return next(
        (one for one in (kind, *get_args(kind)) if isinstance(one, type) and dataclasses.is_dataclass(one)), None
    )


def _heading(kind: Any) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(kind.__doc__.partition("\n\n")[0].split())


def _meanings(kind: Any) -> dict[str, tuple[str, str]]:
    """Return the unit and the meaning of each key, from the lines `key (unit): meaning` of the docstring."""
    body = re.sub(r"\n {8,}", " ", kind.__doc__.partition("\n\n")[2])
    found = re.findall(r"^ *(\w+)(?: \(([^)]*)\))?: (.*)\.$", body, re.MULTILINE)
    return {key: (unit, meaning) for key, unit, meaning in found}


def _describe(kind: Any) -> tuple[str, str]:
    """Return the type and the range of a field, in words."""
    parts, bounds = _parts(kind)
    return " or ".join(dict.fromkeys(parts)), "; ".join(dict.fromkeys(bounds)) or "–"


def _parts(kind: Any, metadata: tuple[Any, ...] = ()) -> tuple[list[str], list[str]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _parts(arguments[0], kind.__metadata__)
    if origin is Literal:
        return [", ".join(f"`{word}`" for word in arguments)], []
    if origin in (Union, types.UnionType):
        found = [_parts(one) for one in arguments if one is not type(None)]
        return [name for names, _ in found for name in names], [bound for _, bounds in found for bound in bounds]
    if origin is tuple:
        names, bounds = _parts(arguments[0])
        count = "" if arguments[-1] is Ellipsis else f" {len(arguments)}"
        items = " or ".join(map(_plural, names)) if len(names) < 3 else "values"
        return [f"list of{count} {items}"], bounds
    if origin is dict:
        return ["table"], []
    return [_NAMES[kind]], _bounds(kind, metadata)


def _plural(name: str) -> str:
    return name if name in ("text", "true or false") else f"{name}s"


def _bounds(kind: type, metadata: tuple[Any, ...]) -> list[str]:
    limits: dict[str, Any] = {}
    for one in metadata:
        for limit in (*getattr(one, "metadata", ()), getattr(one, "func", None)):
            limits |= {name: getattr(limit, name) for name in ("gt", "ge", "lt", "le", "most") if hasattr(limit, name)}
    if kind is int and limits:
        # An exclusive limit is the next number.
        least = limits.get("ge", limits.get("gt", -1) + 1)
        most = limits.get("most", limits.get("le", limits.get("lt", 0) - 1))
        return [f"{least:,} to {most:,}"]
    signs = {"gt": "> {:g}", "ge": "≥ {:g}", "lt": "< {:g}", "le": "≤ {:g}"}
    told = ", ".join(signs[name].format(limits[name]) for name in signs if name in limits)
    return [told] if told else []


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "required"
    if value in (None, ""):
        return "not set"
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{list(value) if isinstance(value, tuple) else text}`"


def _used() -> dict[str, list[str]]:
    """Return the shipped recipes that set or search each key."""
    found: dict[str, list[str]] = {}
    for name in config.names():
        settings = tomllib.loads((config.RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
        space = settings.get("search", {}).pop("space", {})
        for key in _leaves(settings, ""):
            found.setdefault(key, []).append(f"`{name}`")
        for key, choices in space.items():
            found.setdefault(key, []).append(f"`{name}` (searched)")
            for choice in choices:
                found.setdefault(f"search.space.KEY.{choice}", []).append(f"`{name}`")
        if space:
            found.setdefault("search.space", []).append(f"`{name}`")
    return {key: list(dict.fromkeys(names)) for key, names in found.items()}


def _leaves(settings: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


if __name__ == "__main__":
    print(reference())
