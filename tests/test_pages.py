"""The pages: commands work as they stand, links lead somewhere, and what is made of code is up to date."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import Command
from PIL import Image
from processes import ROOT
from test_repository import jobs, tracked

from fmnist import environment, files
from fmnist.cli.app import app
from fmnist.recipe import config
from fmnist.run.folder import RunDir
from tools import recipe_keys

PAGES = [path for path in tracked() if path.suffix == ".md"]
MAKEFILE = (ROOT / "Makefile").read_text()

HERE = [
    "fmnist --help",
    "fmnist data",
    "fmnist devices --devices cpu:2",
    "fmnist tune --status results/tuned-mlp-seed0",
    "fmnist tune --status results/tuned-mlp-seed0 --json",
    "fmnist runs",
    "fmnist runs --sort test",
    "fmnist runs results --json",
    "fmnist report results/*",
    "fmnist report results/wide-mlp-seed0 --json",
    "fmnist eval results/wide-mlp-seed0",
    "fmnist eval results/wide-mlp-seed0 --tta",
    "fmnist eval results/wide-mlp-seed0 results/wide-mlp-seed1 --ensemble",
    "fmnist report results/quick-mlp-seed0",
    "fmnist report results/quick-mlp-seed0 results/shorter",
    "fmnist report results/regularized-mlp-seed*",
    "fmnist report results/wide-mlp-seed0 results/wide-mlp-seed1",
    "fmnist predict shoe.jpg --run results/quick-mlp-seed0",
    "fmnist predict shoe.jpg --run results/tuned-mlp-seed0",
    "fmnist predict shoe.jpg --run results/tuned-mlp-seed0 --json",
    "fmnist predict shoe.jpg --run results/tuned-mlp-seed0 --show shown.png",
    "fmnist export results/tuned-mlp-seed0 --format savedmodel",
]
"""Run here, on copies of a small finished run."""

ELSEWHERE = {
    r"make .*": "the next test asks make for its commands and reads those; .ci/run runs `make all RECIPE=smoke`",
    r"fmnist train .*": "takes minutes; test_fit.py and others train, and test_jobs.py runs every job",
    r"fmnist tune (--workers|--recipe).*": "takes minutes, or waits for others; test_search_processes.py runs them",
    r"KERASTUNER_TUNER_ID=.* fmnist tune .*": "waits for the other; test_search_processes.py starts such processes",
    r"(export FMNIST_TOKEN_FILE=|openssl rand) .*|export FMNIST_TOKEN_FILE=token": "a secret for the roles above",
    r"git clone .*": "needs the network",
    r"\. \.venv/bin/activate": "changes the reader's shell alone",
    r"export RESULTS=.*|mkdir -p .*|docker compose .*": "needs Docker; test_containers.py runs compose.yaml",
    r"kubectl .*": "needs a cluster; test_rendered.py checks the manifests",
    r"pytest .*": "this is one",
}
"""Not run here, and why; by a pattern of the whole command."""


def commands() -> list[str]:
    """The lines of every shell block, without comments."""
    blocks = [block for page in PAGES for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.M | re.S)]
    lines = [re.sub(r"\s+#.*", "", line.strip()) for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(part for line in filter(None, lines) for part in line.split(" && ")))


def parse(words: list[str]) -> None:
    """Read the arguments of `fmnist` as it does, without running it."""
    name, *arguments = words
    group: Any = typer.main.get_command(app)
    with group.make_context("fmnist", [name], resilient_parsing=True) as context:
        command = group.get_command(context, name)
        assert command, name
        command.make_context(name, arguments, parent=context)


def test_every_command_is_run_or_has_a_reason_not_to_be() -> None:
    found = [command for command in commands() if command.split()[0] not in ("cd",)]
    unknown = [one for one in found if one not in HERE and not any(re.fullmatch(each, one) for each in ELSEWHERE)]
    assert unknown == []
    assert set(HERE) <= set(found)
    assert [each for each in ELSEWHERE if not any(re.fullmatch(each, one) for one in found)] == []


def known_to_make(command: str) -> list[str]:
    """The targets of a command, which the Makefile has, as it has its variables."""
    words = shlex.split(command)[1:]
    targets = [word for word in words if "=" not in word]
    assert {word.partition("=")[0] for word in words if "=" in word} <= set(re.findall(r"^(\w+) \?=", MAKEFILE, re.M))
    # A rule with a pattern makes test-slurm and its like.
    assert [name for name in targets if not re.search(rf"^({name}|{name.partition('-')[0]}-%):", MAKEFILE, re.M)] == []
    return targets


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("make ")])
def test_make_takes_the_commands(command: str) -> None:
    targets, words = known_to_make(command), shlex.split(command)[1:]
    if targets[:1] and targets[0] not in ("image", "submit", "status", "logs", "cancel") and "ENGINE" not in command:
        for job in jobs(*words):
            parse(job)


def test_fmnist_takes_the_options() -> None:
    for command in commands():
        if "fmnist " in command and not command.startswith(("make ", "fmnist --", "git ", "cd ")):
            parse(shlex.split(command.partition("fmnist ")[2]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_sentence_tells_to_type_is_known(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    for command in re.findall(r"`((?:make|fmnist) [a-z-][^`]*)`", text):
        words = " ".join(command.split())
        if words.startswith("make "):
            known_to_make(words)
        elif not words.startswith("fmnist --"):
            parse(shlex.split(re.sub(r"\bN\b", "1", words))[1:])


def test_the_commands_do_what_they_say(run: Path, tmp_path: Path, fmnist: Command) -> None:
    names = {name for command in HERE for name in re.findall(r"results/([\w-]+)", command)} - {"regularized-mlp-seed"}
    for name in (*names, "regularized-mlp-seed0", "regularized-mlp-seed1"):
        copy = RunDir(shutil.copytree(tmp_path / run, tmp_path / "results" / name))
        # A report refuses copies of a run, so this becomes one of another training.
        with zipfile.ZipFile(copy.model, "a") as archive:
            archive.comment = name.encode()
        files.write_json(copy.history, files.read_json(copy.history) | {"model": {"sha256": files.sha256(copy.model)}})
        fmnist("eval", copy.path)
    garment = np.full((60, 60), 255, np.uint8)
    garment[20:40, 10:50] = 90
    Image.fromarray(garment).save(tmp_path / "shoe.jpg")
    for command in HERE:
        words: list[str] = []
        for word in shlex.split(command)[1:]:
            # As a shell does it.
            words += sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob(word)) if "*" in word else [word]
        assert fmnist(*words).stdout, command


def test_the_tour_of_python_runs(tmp_path: Path, data_dir: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.M | re.S)
    (tmp_path / "tour.py").write_text("\n".join(blocks))
    ended = subprocess.run([sys.executable, "tour.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^test accuracy 0\.[678]\d\d$", ended.stdout, re.M)
    assert (tmp_path / "results" / "tour" / "model.keras").exists()


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.S))
def test_the_recipes_in_the_pages_are_good_ones(block: str, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(block)
    assert config.load(str(tmp_path / "my.toml")).name == "my"


def test_the_messages_that_are_explained_are_those_of_the_code() -> None:
    code = "".join(path.read_text() for path in tracked() if path.suffix == ".py" or path.name == "Makefile")
    messages = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    assert len(messages) > 9
    assert [part for message in messages for part in message.split("...") if part.strip() not in code] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https:"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_and_modules_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it names what was")
    text = page.read_text()
    folders = "benchmarks|docker|docs|fmnist|jobs|requirements|tests|tools"
    assert [name for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text) if not (ROOT / name).exists()] == []
    modules = re.findall(r"python3? -m ([a-z_.]+)", text)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [path.relative_to(ROOT) for path in PAGES if path.name != "README.md"]
    assert [name for name in names if f"]({name})" not in readme] == []


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_pages_hold_what_is_made_of_code() -> None:
    docs = ROOT / "docs"
    assert environment.table() in (docs / "environment.md").read_text(), "python -m fmnist.environment prints it"
    assert recipe_keys.reference() in (docs / "recipes.md").read_text(), "python -m tools.recipe_keys prints it"


def test_every_key_has_a_meaning() -> None:
    """The last cells of its row: none is empty, and each key of the schema has a row."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \| [^|]+ \|$", recipe_keys.reference(), re.M)
    assert len(rows) > 40
    assert [key for key, meaning in rows if len(meaning.strip()) < 10] == []
