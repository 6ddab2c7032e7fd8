"""A run folder that is damaged at random, and all that reads one."""

import contextlib
import copy
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runs import make_run
from searching import Runner, recipe, search

from fmnist import files
from fmnist.errors import BadInput, Failed
from fmnist.evaluation import job as evaluate
from fmnist.evaluation import predict
from fmnist.report import figures
from fmnist.report import one as report
from fmnist.report import runs as report_runs
from fmnist.report import several as report_several
from fmnist.run import provenance, records
from fmnist.run.folder import RunDir
from fmnist.search import roles, status
from fmnist.study import table as evidence_table
from fmnist.study.table import Judged, Row
from fmnist.training import job as train

MOST_SECONDS = 10.0
MOST_CHARACTERS = 1000
OTHERS: list[Any] = [
    None, True, False, 0, -1, 7, 2**70, 0.5, 1e300, -1e300, "", "x", "1", "\ud800", "a" * 5000, [], {}, [[]], [None],
    {"x": 1}, [{}], {"": ""},
]  # fmt: skip
Reader = Callable[[], object]


def make(folder: Path) -> RunDir:
    """A finished run with all files that readers know, made by hand; beside it another of another seed."""
    run = make_run(folder / "run", seed=7)
    make_run(folder / "other", seed=8)
    metrics = files.read_json(run.metrics)
    files.write_json(run.averaged_metrics, {**metrics, "views": 10})
    plain = {name: value for name, value in metrics.items() if name != "model"}
    members = [{"run": "run", "model": metrics["model"]}, {"run": "other", "model": metrics["model"]}]
    files.write_json(folder / "run" / "ensemble.json", {**plain, "members": members, "parameters": 2, "views": 1})
    # For a search's table and end.
    files.write_json(run.used_up, {"trials": 5})
    roles.Notice("localhost:1", 5).write(run)
    return run


def make_search(folder: Path, oracle: str) -> RunDir:
    """The folder of a search in its midst."""
    of = recipe(oracle, trials=9)
    run = RunDir(folder)
    run.claim(of, 0)
    search(folder, recipe(oracle, trials=6), Runner())
    return run


def readers(run: RunDir, output: Path) -> dict[str, Reader]:
    """By the name of a job, what it reads of a run folder, and says of it."""
    other = RunDir(run.path.parent / "other")
    ensemble = run.path / "ensemble.json"
    claimed, _ = run.recipe()
    metrics, averaged, together = (files.read_json(path) for path in (run.metrics, run.averaged_metrics, ensemble))

    def known(path: Path, kind: Any, made: dict[str, Any], *names: str) -> object:
        found = evaluate._known(path, kind, {name: evaluate._without_parameters(made[name]) for name in names})
        return found and evaluate.sentence(found)

    def evidence() -> object:
        read = [records.read(run.metrics, records.Metrics), records.read(run.averaged_metrics, records.Averaged)]
        rows = [Row("a", [Judged(one, [run])]) for one in read]
        rows.append(Row("b", [Judged(records.read(ensemble, records.Ensemble), [run, other])]))
        return evidence_table.markdown(rows), json.dumps(evidence_table.to_dict(rows))

    def trained() -> object:
        return train.finished(run, train.with_best(run, claimed))

    return {
        "report": lambda: (report.write(run, output), report.summary(run)),
        "comparison": lambda: (report_several.write([run, other], output), report_several.summary([other, run])),
        "report --json": lambda: json.dumps([figures.of_run(run), figures.of_runs([other, run])]),
        "runs": lambda: [row.to_dict() for row in report_runs._rows(run.path.parent)],
        "predict": lambda: predict._names(run),
        "eval": lambda: known(run.metrics, records.Metrics, metrics, "model", "data"),
        "eval --tta": lambda: known(run.averaged_metrics, records.Averaged, averaged, "model", "data", "views"),
        "eval --ensemble": lambda: known(ensemble, records.Ensemble, together, "members", "data", "views"),
        "train": trained,
        "tune": lambda: (status.search_finished(run, claimed), status.outcome(run, claimed)),
        "tune --status": lambda: status.show(run),
        "tune --status --json": lambda: status.show(run, as_json=True),
        "worker": lambda: roles.read_notice(run),
        "evidence": evidence,
        "check": lambda: run.check(claimed, 7),
        "record": lambda: provenance.differences(provenance.decisive("CPU", {}), {**run.jobs().get("train", {})}),
        "check_data": lambda: run.check_data({}),
    }


def resume(run: RunDir, oracle: str) -> Reader:
    """Takes up a search where it was, and ends it."""
    return lambda: search(run.path, recipe(oracle, trials=9), Runner()).rows()


def retype(value: Any, chance: random.Random) -> Any:
    """The value with one part of it of another type, another value of its type, or gone."""
    changed = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, part in parts:
            places.append((node, key))
            walk(part)

    walk(changed)
    if not places:
        return chance.choice(OTHERS)
    node, key = chance.choice(places)
    if chance.random() < 0.1:
        del node[key]
    else:
        node[key] = chance.choice([*OTHERS, [node[key]], {"x": node[key]}, str(node[key])])
    return changed


def retype_file(path: Path, chance: random.Random) -> None:
    """Change a type in JSON, or a cell of a table."""
    if path.suffix == ".csv":
        lines = [line.split(",") for line in path.read_text().splitlines()]
        line = chance.choice(lines)
        cell = chance.randrange(len(line))
        line[cell : cell + chance.choice([0, 1, 1, 1])] = [str(chance.choice(OTHERS))]
        path.write_bytes("\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass"))
    else:
        path.write_text(json.dumps(retype(json.loads(path.read_bytes()), chance)))


def break_bytes(path: Path, chance: random.Random) -> None:
    """Cut it off, or change, add or take away some bytes."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content) + 1)
    length = chance.choice([1, 1, 1, 2, 8, 100])
    match chance.randrange(5):
        case 0:
            del content[start:]
        case 1:
            del content[start : start + length]
        case 2:
            content[start:start] = chance.randbytes(length)
        case 3:
            content[start : start + length] = bytes(length)
        case 4 if start < len(content):
            content[start] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[Path, random.Random], None], chance: random.Random) -> Iterator[None]:
    """Have the file damaged, and then as it was."""
    before = path.read_bytes()
    damage(path, chance)
    try:
        yield
    finally:
        path.write_bytes(before)


def outcome(reader: Reader) -> str:
    """What became of a reading: "read", or "refused" in one line, in good time."""
    begin = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            reader()
        said, line = "read", ""
    except (BadInput, Failed) as error:
        said, line = "refused", str(error)
    assert "\n" not in line
    assert len(line) < MOST_CHARACTERS
    assert time.monotonic() - begin < MOST_SECONDS
    return said
