"""What the repository holds, and how its front door turns variables into commands."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, make

import fmnist
from fmnist.recipe import config

SHIPPED = ("docker", "fmnist", "jobs")
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def tracked() -> list[Path]:
    """The files that git holds, or would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]


def occurrences(pattern: str) -> list[str]:
    texts = {path.relative_to(ROOT): path.read_bytes().decode(errors="ignore") for path in tracked()}
    return [f"{name}: {match[0]}" for name, text in texts.items() for match in re.finditer(pattern, text)]


def jobs(*args: str) -> list[list[str]]:
    """The arguments of `fmnist` in the commands that make would run."""
    result = make("--dry-run", *args)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^\S*bin/fmnist (.*)$", lines, re.MULTILINE)]


def test_no_file_names_a_package_registry() -> None:
    assert occurrences(r"\b(?:pypi|python\w+|npmjs|debian|ubuntu|anaconda)\.(?:org|com|io|net)\b") == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert occurrences(r"(?<![\w.$})/-])/(?:work|root|home|Users)/\w+") == []


def test_no_file_is_large() -> None:
    assert [path for path in tracked() if path.stat().st_size > 2**20] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_requirement_has_hashes_and_no_address(lock: Path) -> None:
    lines = [line for line in lock.read_text().replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    requirement = re.compile(r"[a-z0-9.-]+==[\w.+]+( ; [^@]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert lines
    assert [line for line in lines if not requirement.fullmatch(line.strip())] == []
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_environments_hold_all_that_the_package_needs(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    declared = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert declared
    needed = re.findall(r'^    "([a-z0-9-]+)', declared[1], re.MULTILINE)
    # setuptools installs the package itself, without a download of its own.
    assert [package for package in [*needed, "setuptools"] if not re.search(rf"^{package}==", lock, re.MULTILINE)] == []


def test_the_pages_name_the_oldest_keras_that_is_tested() -> None:
    locked = re.search(r"^keras==(\d+\.\d+)\.0 ", (ROOT / "requirements" / "old-keras.txt").read_text(), re.MULTILINE)
    assert locked
    assert f"plain Keras loads it, from {locked[1]} on" in (ROOT / "docs" / "run-folder.md").read_text()


def test_every_recipe_that_is_named_exists() -> None:
    files = [ROOT / name for name in ("Makefile", ".ci/run")] + [path for path in tracked() if path.suffix == ".md"]
    named = {
        recipe for path in files for recipe in re.findall(r"RECIPE(?: \?)?= ?([\w-]+)(?![\w.-])", path.read_text())
    }
    assert "tuned-mlp" in named
    assert named - set(config.names()) == {"NAME"}  # stands for any


def test_the_changelog_has_this_version() -> None:
    assert f"## [{fmnist.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_what_a_command_prints_is_read_in_a_named_encoding() -> None:
    """Not in the locale's. That each text file names one is ruff's to check."""
    modules = [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in SHIPPED]
    calls = [node for path in modules for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
    given = [{keyword.arg for keyword in call.keywords} for call in calls]
    assert any("encoding" in names and "capture_output" in names for names in given)
    assert not any({"text", "universal_newlines"} & names for names in given)


def test_make_alone_lists_every_target_in_one_screen() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    listed, variables = make().stdout, make("variables").stdout
    assert [name for name in phony[1].split() if not re.search(rf"^  make {name} ", listed, re.MULTILINE)] == []
    names = re.findall(r"^(\w+) \?=", text, re.MULTILINE)
    assert [name for name in names if not re.search(rf"^  {name} ", variables, re.MULTILINE)] == []
    assert len(listed.splitlines()) <= 50
    assert max(map(len, [*listed.splitlines(), *variables.splitlines()])) <= 80


def test_make_all_runs_the_jobs_in_order_on_one_run_folder() -> None:
    job = ["--recipe=smoke", "--seed=3", "--run=out/smoke-seed3"]
    expected = [["data"], ["tune", *job], ["train", *job], ["eval", "out/smoke-seed3"], ["report", "out/smoke-seed3"]]
    assert jobs("-j4", "all", "RECIPE=smoke", "SEED=3", "RESULTS=out") == expected


def test_make_passes_every_variable_on() -> None:
    (tune,) = jobs("tune", "RECIPE=my/own.toml", "TRIALS=7", "DATA=idx", "SET=model.hidden=[64,32] training.epochs=2")
    expected = ["--recipe=my/own.toml", "--seed=0", "--run=results/own-seed0"]
    expected += ["--set=model.hidden=[64,32]", "--set=training.epochs=2", "--data=idx", "--trials=7"]
    assert tune == ["tune", *expected]
