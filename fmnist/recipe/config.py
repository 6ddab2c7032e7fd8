"""Resolve recipes, which are TOML files of settings, into the frozen dataclasses of `schema`."""

import codecs
import copy
import dataclasses
import datetime
import functools
import itertools
import math
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fmnist.errors import BadInput
from fmnist.files import read_bytes
from fmnist.recipe.schema import Recipe, SpaceConfig, keys, nearest, nearest_value
from fmnist.text import decoded, printable, shorten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = resources.files("fmnist.recipe")
_RECIPE = TypeAdapter(Recipe)
_HIDDEN = "model.hidden"
_MOST = 2**20  # bytes; no sensible recipe is larger
_MOST_ERRORS = 10  # that one message tells
_LONGEST = 900  # characters of such a message
# Keys that were removed because they did not help (docs/experiments.md); they were off at 0.
_GONE = ("training.augment.erase", "training.augment.mixup", "training.distillation")
# TOML has lists and sections, not tuples and dictionaries.
_WORDS = {
    "a valid tuple": "a list",
    "a valid string": "text",
    "a valid boolean(, unable to interpret input)?": "true or false",
    "^Tuple": "List",
    r"a dictionary or an instance of \w+|a valid dictionary": "a section",
    " after validation": "",
    ", unable to parse string as an? (integer|number)|, got a number with a fractional part": "",
    "^Field required": "it is missing",
}
_EXACT = 2**53  # tables, TensorBoard and other readers of JSON hold numbers as doubles, which are exact up to here


class _Toml(reprlib.Repr):
    """Values as TOML writes them, long ones shortened; None, which only JSON has, as its `null`."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_bool(self, value: bool, _level: int) -> str:
        return str(value).lower()

    def repr_NoneType(self, _value: None, _level: int) -> str:
        return "null"

    def repr_dict(self, value: Mapping[str, Any], level: int) -> str:
        inner = [f"{key} = {self.repr1(one, level - 1)}" for key, one in itertools.islice(value.items(), self.maxdict)]
        return shorten(f"{{{', '.join(inner)}{', ...' * (len(value) > len(inner))}}}") if level > 0 else "{...}"

    def repr_date(self, value: datetime.date, _level: int) -> str:
        return value.isoformat()

    repr_datetime = repr_time = repr_date

    def repr_tuple(self, value: tuple[Any, ...], level: int) -> str:
        return self.repr_list([*value], level)


_VALUES = _Toml()


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a search may give to one key: all of the key's type, and none twice.

    They are `values`, or a range `min`..`max`, or (for `model.hidden`) the fewest and most `layers`, each of `units`.
    """

    values: tuple[str | bool | int | float, ...] = ()
    min: int | float | None = None
    max: int | float | None = None
    sampling: str = "linear"
    layers: tuple[int, int] | None = None
    units: tuple[int, ...] = ()


def names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(item.name.removesuffix(".toml") for item in RECIPES.iterdir() if item.name.endswith(".toml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by its name or by the path of a TOML file, and apply overrides.

    Args:
        overrides: `key=value`; the value is read as TOML.

    Raises:
        BadInput: there is no such recipe, it is not TOML, a key is unknown, or a value is out of range; the search
            space is checked too.
    """
    path = Path(recipe)
    if recipe in names():
        text = (RECIPES / f"{recipe}.toml").read_text(encoding="utf-8")
    elif path.suffix == ".toml":
        text = _read(path)
    else:
        raise BadInput(f"unknown recipe {shorten(repr(recipe))}{nearest(recipe, names())}; known: {', '.join(names())}")
    try:
        settings = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers with too many digits and deep nesting raise these too
        raise BadInput(f"recipe {recipe} is not valid TOML: {shorten(str(error))}") from error
    for override in overrides:
        _override(settings, override)
    if "name" in settings:
        raise BadInput(f"recipe {recipe}: the key 'name' is taken from the file's name; leave it out")
    settings["name"] = printable(path.stem)
    resolved = resolve(settings, f"recipe {recipe}")
    if resolved.search:
        space(resolved, f"recipe {recipe}: search.space")
    return resolved


def resolve(settings: Mapping[str, Any], source: str) -> Recipe:
    """Check nested settings, from TOML or from `to_dict`, and return them as a recipe.

    Args:
        source: what error messages begin with.

    Raises:
        BadInput: a key is unknown, or a value is out of range.
    """
    try:
        return _RECIPE.validate_python(settings)
    except ValidationError as error:
        raise BadInput(f"{source}: {_explain(_errors(settings))}") from error


def recorded(settings: Mapping[str, Any], source: str) -> Recipe:
    """Resolve the settings that a run folder holds, and leave out keys that this version no longer has.

    Raises:
        BadInput: a key is unknown, or a value is out of range, as where a newer version has written them.
    """
    try:
        return resolve(upgrade(settings)[0], source)
    except BadInput as error:
        raise BadInput(f"{error}; if another version of fmnist wrote it, use that one") from error


def upgrade(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Remove keys that this version no longer has; return the other settings, and the removed ones that were in use."""
    kept: dict[str, Any] = copy.deepcopy({**settings})
    used = {}
    for key in _GONE:
        *sections, name = key.split(".")
        section: Any = kept
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and (value := section.pop(name, None)):
            used[key] = value
    return kept, used


def replace(recipe: Recipe, values: Mapping[str, Any], source: str = "the resulting configuration") -> Recipe:
    """Return the recipe with dotted keys (`training.learning_rate`) set to `values`; check it as `resolve` does."""
    settings = to_dict(recipe)
    for key, value in values.items():
        _set(settings, key, value)
    return resolve(settings, source)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as nested dictionaries of plain values; `resolve` is the inverse."""
    return _RECIPE.dump_python(recipe, mode="json")


def _read(path: Path) -> str:
    """Read TOML as editors write it: UTF-8 in any locale, any line endings, with or without a byte-order mark."""
    try:
        raw = read_bytes(path, _MOST)
    except OSError as error:
        raise BadInput(f"recipe {path}: {error.strerror}; name another with --recipe") from error
    # UTF-16 without a byte-order mark contains zero bytes, and TOML never does.
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
        raise BadInput(f"recipe {path} is UTF-16, or no text at all; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"recipe {path} is not UTF-8 (line {line}: {error.reason}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def space(recipe: Recipe, source: str = "search.space") -> dict[str, Domain]:
    """Return the domain of each dotted key that the recipe's search varies. Nothing else reads `search.space`.

    Raises:
        BadInput: the recipe has no search, or the configuration refuses a value of the space, or a pair of values.
    """
    given = recipe.require_search().space
    fixed = dataclasses.replace(recipe, search=None)
    tried = {key: _values(key, choices, source) for key, choices in given.items()}
    first = {key: values[0] for key, values in tried.items()}
    read = {}
    for key, choices in given.items():
        taken = [replace(fixed, {**first, key: value}, source) for value in tried[key]]
        read[key] = _domain(key, choices, [_get(one, key) for one in taken], source)
    # Values that exclude each other are numbers or lists, of two keys. If three keys conflict, a trial fails.
    ends = {key: values if key == _HIDDEN else (min(values), max(values)) for key, values in tried.items()
            if not any(isinstance(value, str) for value in values)}  # fmt: skip
    for one, other in itertools.combinations(ends, 2):
        for value, another in itertools.product(ends[one], ends[other]):
            replace(fixed, {**first, one: value, other: another}, source)
    return read


def _values(key: str, choices: SpaceConfig, source: str) -> list[Any]:
    """Return values that represent all others: a configuration that takes these takes every value of the space."""
    if choices.layers is not None and choices.units is not None:
        return [[width] * layers for width in choices.units for layers in choices.layers]
    return [choices.min, choices.max] if choices.values is None else list(choices.values)


def _domain(key: str, choices: SpaceConfig, values: Sequence[Any], source: str) -> Domain:
    """Return the domain of `choices`; `values` are its values, converted to the key's type."""
    if choices.layers is not None and choices.units is not None:
        return Domain(layers=choices.layers, units=tuple(dict.fromkeys(choices.units)))
    if too_large := [value for value in values if type(value) is int and value >= _EXACT]:
        raise BadInput(f"{source}: {key}: {too_large[0]} is too large; no number may be above 2**53")
    if choices.values is not None:
        return Domain(tuple(dict.fromkeys(values)))
    least, most = values
    if isinstance(least, bool):
        raise BadInput(f"{source}: {key} is true or false; give values, not min and max")
    if choices.sampling == "log" and not math.isfinite(most / least):
        raise BadInput(f"{source}: {key}: min {least} and max {most} are too far apart")
    return Domain(min=least, max=most, sampling=choices.sampling)


def _get(recipe: Recipe, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), recipe)


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, text = decoded(override).partition("=")
    if not equals:
        raise BadInput(f"--set {shorten(override)}: write key=value, for example training.batch_size=256")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    _set(settings, key.strip(), value)


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    # A key of `search.space` has dots of its own, and stands in quotes.
    quoted = re.sub('"([^"]*)"', lambda found: found[1].replace(".", "\0"), key)
    *sections, name = (part.replace("\0", ".") for part in quoted.split("."))
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise BadInput(f"{shorten(key)}: {shorten(repr(section))} is a value, not a section")
    settings[name] = value


def _errors(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the errors of settings that are refused.

    Values are compared only where all others of their section are right. So check again without those that are wrong.
    """
    found: list[Mapping[str, Any]] = []
    wrong: list[str] = []
    seen: set[tuple[Any, str]] = set()
    while True:
        try:
            _RECIPE.validate_python(settings)
            return found
        except ValidationError as error:
            new = [each for each in error.errors() if (each["loc"], each["msg"]) not in seen]
        for each in new:
            seen.add((each["loc"], each["msg"]))
            # What stands in place of a wrong value now is no mistake of the recipe.
            if not any(_holds(one, key) or _holds(key, one) for one in wrong for key in _compared(each)):
                found.append(each)
        if not new or len(found) > _MOST_ERRORS:
            return found
        for each in new:
            wrong.append(_compared(each)[0])
            if place := wrong[-1].split(".") if _is_conflict(each) else [*map(str, each["loc"])]:
                settings = _without(settings, place)


def _is_conflict(error: Mapping[str, Any]) -> bool:
    return error["type"] == "conflict"


def _compared(error: Mapping[str, Any]) -> Sequence[str]:
    """Return the dotted keys that an error is about; the first one is to be changed."""
    return error["ctx"]["keys"] if _is_conflict(error) else [".".join(map(str, error["loc"]))]


def _holds(key: str, other: str) -> bool:
    return f"{other}.".startswith(f"{key}.")


def _without(settings: Mapping[str, Any], place: Sequence[str]) -> dict[str, Any]:
    """Return a copy without what is at `place`, or else without the innermost section around it."""
    name, *rest = place
    inner = settings.get(name)
    if isinstance(inner, Mapping) and rest and rest[0] in inner:
        return {**settings, name: _without(inner, rest)}
    return {key: value for key, value in settings.items() if key != name}


def _explain(errors: Sequence[Mapping[str, Any]]) -> str:
    """Tell all that is wrong, in one line."""
    # Of keys that are no sections in truth, what is said of their content would mislead.
    misread = [each["loc"][:-1] for each in errors if each["type"] == "section"]
    errors = [each for each in errors if each["type"] == "section" or each["loc"][:3] not in misread]
    found: dict[str, Any] = {}
    above: set[str] = set()
    # A union of types reports one error a member. The deepest counts: of a list with a mistake, the other members say
    # that it should be no list.
    for each in sorted(errors, key=lambda each: -len(each["loc"])):
        key = _key(each)
        if key not in above:
            found.setdefault(key, []).append(each)
            above.update(key[: dot.start()] for dot in re.finditer(r"\.", key))
    keys = [key for key in dict.fromkeys(map(_key, errors)) if key in found]
    told = [_explain_one(key, found[key]) for key in keys[:_MOST_ERRORS]]
    if len(keys) == 1:
        return told[0]
    more = f" and {len(keys) - len(told)} more" if len(keys) > len(told) else ""
    lines = " ".join(f"({number}) {line}" for number, line in enumerate(told, 1))
    return shorten(f"{len(keys)} errors: {lines}", _LONGEST) + more


def _key(error: Mapping[str, Any]) -> str:
    """Return the key that an error is told of."""
    if _is_conflict(error):
        return f"{error['ctx']['keys'][0]}, beside others"
    place = error["loc"]
    # An item that a list lacks has no place.
    if error["type"] == "missing" and isinstance(place[-1], int):
        place = place[:-1]
    # A union's member is in the place by its name (`tuple[...]`, `constrained-float`, `str`). A key of `search.space`
    # is whatever the recipe says.
    key = ".".join(
        part
        for index, part in enumerate(map(str, place))
        if (place[:2], index) == (("search", "space"), 2)
        or not re.search(r"\[|^constrained-|^(str|bool|int|float)$", part)
    )
    # What is wrong with a name is not what is wrong with what it stands for.
    return f"{key}, its name" if place[-1:] == ("[key]",) else key


def _explain_one(key: str, errors: Sequence[Mapping[str, Any]]) -> str:
    """Tell what is wrong with a key; of a union, there may be one error for each member."""
    error = errors[0]
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown([str(part) for part in error["loc"]])
    message = error["msg"].removeprefix("Value error, ")
    if _is_conflict(error):
        return ": ".join([*map(str, error["loc"]), message])
    if error["loc"][-1:] == ("[key]",) or not key:
        # It names the key itself.
        return shorten(message, 400)
    value = error["input"]
    if error["type"] == "missing" and not isinstance(value, Mapping):
        message = "Input should be a list of more items"
    elif all(each["type"].endswith("_type") for each in errors):
        wanted = dict.fromkeys(each["msg"].removeprefix("Input should be ") for each in errors)
        message = f"Input should be {' or '.join(wanted)}"
    for pattern, word in _WORDS.items():
        message = re.sub(pattern, word, message)
    is_told = isinstance(value, dict) or error["type"] in ("too_long", "too_short")
    told = "" if is_told else f", not {_VALUES.repr(value)}"
    if error["type"] == "literal_error" and isinstance(value, str):
        told += nearest_value(value, re.findall("'([^']+)'", error["ctx"]["expected"]))
    return f"{shorten(key)}: {message}{told}"


def _unknown(place: Sequence[str]) -> str:
    key = ".".join(place)
    known = list(keys())
    if place[:2] == ["search", "space"] and len(place) > 2:
        known = [f"{'.'.join(place[:-1])}.{field.name}" for field in dataclasses.fields(SpaceConfig)]
    return f"unknown key {shorten(repr(key))}{nearest(key, known)}"
