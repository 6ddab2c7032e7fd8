"""Names and texts of any encoding: paths that are not UTF-8, other locales, recipes as editors save them."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import Page, make_run
from searching import Runner, recipe, search

from fmnist import files
from fmnist.cli.app import app
from fmnist.errors import BadInput
from fmnist.evaluation import predict
from fmnist.network.build import build
from fmnist.recipe import config
from fmnist.recipe.schema import ModelConfig
from fmnist.report import one as report
from fmnist.report import several as report_several
from fmnist.run.folder import RunDir
from fmnist.text import file_name, print_anything, printable

LATIN = os.fsdecode(b"caf\xe9")
TEXT = 'description = "für alle"\n[training]\nepochs = 3\n'


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A path, of nothing yet, whose name is Latin-1."""
    return tmp_path / LATIN


def strict_json(folder: Path) -> None:
    """All JSON in `folder` holds text that every reader takes."""
    found = list(folder.rglob("*.json"))
    assert found
    for path in found:
        json.dumps(json.loads(path.read_bytes()), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("raw", "text"), [(b"plain", "plain"), ("café".encode(), "café"), (b"caf\xe9", r"caf\xe9"), (b"\xff/x", r"\xff/x")]
)
def test_a_name_can_be_printed(raw: bytes, text: str) -> None:
    assert printable(os.fsdecode(raw)) == printable(Path(os.fsdecode(raw))) == text
    assert os.fsencode(file_name(text)) == text.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(written, encoding))
    print_anything()
    print(f"0.9 ± 0.1 – {LATIN}…", flush=True)
    print(f"0.9 ± 0.1 – {LATIN}…", file=sys.stderr, flush=True)
    escaped = f"0.9 ± 0.1 – {LATIN}…\n".encode(encoding, "backslashreplace")
    assert written.getvalue() == 2 * escaped


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.replace("\n", "\r")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_recipe_as_editors_save_it(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode(encoding))
    assert config.load(str(path)) == config.resolve(
        {"name": "mine", "description": "für alle", "training": {"epochs": 3}}, "test"
    )


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        *((name, "is UTF-16, or no text at all") for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        ("latin-1", "is not UTF-8 (line 1: invalid start byte)"),
    ],
)
def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path, encoding: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(BadInput) as raised:
        config.load(str(path))
    assert str(raised.value) == f"recipe {path} {said}; save it as UTF-8"


def test_words_of_the_command_line_are_text(latin: Path) -> None:
    path = latin.with_suffix(".toml")
    path.write_text(TEXT)
    resolved = config.load(str(path), [f"description={LATIN}"])
    assert (resolved.name, resolved.description) == (r"caf\xe9", r"caf\xe9")


def test_pages_and_tables_of_runs_in_latin_1_folders(latin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(latin / f"{LATIN}-{seed}", seed=seed) for seed in range(2)]
    for run in runs:
        page = report.write(run).read_text(encoding="utf-8")
        assert r"caf\xe9-" in Page(page).text
        assert r"caf\xe9-" in report.summary(run)
    compared = report_several.write(runs)
    assert compared == latin / "comparison.html"
    links = [
        attributes["href"] for tag, attributes in Page(compared.read_text(encoding="utf-8")).elements if tag == "a"
    ]
    assert "caf%E9-0/report.html" in links
    app(["tune", "--status", str(runs[0].path)], standalone_mode=False)
    assert "3 of 10 trials done" in capsys.readouterr().out
    strict_json(latin)


def test_a_prediction_names_its_file(latin: Path) -> None:
    file = latin.with_suffix(".png")
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(file)
    said = predict.Prediction(file, None, [("Bag", 1.0)])
    assert str(said) == f"{file.parent}/caf\\xe9.png: Bag 100.0%"
    assert json.loads(said.json())["file"] == str(file)
    assert predict._read(file)[0].shape == (1, 28, 28)


def test_a_search_in_a_latin_1_folder(latin: Path) -> None:
    class Failing(Runner):
        def __call__(self, trial: object, report: object) -> None:
            raise ValueError(f"{LATIN} is missing")

    chief = search(latin, recipe(trials=2), Runner())
    assert len(chief.rows()) == 2
    chief = search(latin, recipe(trials=3), Failing())
    assert chief.rows()[-1]["message"] == f"ValueError: {LATIN} is missing"
    assert r"\udce9 is missing" in (latin / "trials.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["plain", "café", LATIN])
def test_tensorflow_finds_the_folder(tmp_path: Path, name: str) -> None:
    """And makes no second one, of the name as it would read it."""
    folder = tmp_path / name
    given = files.utf8_path(folder)
    assert (given == str(folder)) == (name != LATIN)
    writer = tf.summary.create_file_writer(f"{given}/final")
    with writer.as_default(step=0):
        tf.summary.scalar("loss", 1.0)
    writer.close()
    build(ModelConfig(hidden=())).export(f"{given}/saved", format="tf_saved_model", verbose=False)
    assert tf.saved_model.load(f"{given}/saved")
    assert list(tmp_path.iterdir()) == [folder]
    assert len(list(folder.glob("final/events*"))) == 1


# One process, for one import of TensorFlow. The picture is beside the run folder.
JOBS = """
import sys
from fmnist.cli.app import main
run = sys.argv[1]
settings = ["--set", "data.train_limit=2000", "--set", "training.epochs=2"]
for job in (
    ["train", "--recipe", "baseline-mlp", *settings, "--run", run],
    ["eval", run],
    ["report", run],
    ["predict", f"{run}.png", "--run", run],
):
    sys.argv = ["fmnist", *job]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.parametrize(("name", "locale"), [("café".encode(), "C"), (b"caf\xe9", "en_US.ISO-8859-1")])
def test_the_jobs_in_another_locale(tmp_path: Path, data_dir: Path, name: bytes, locale: str) -> None:
    if locale != "C":
        made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "locales" / locale)]
        (tmp_path / "locales").mkdir()
        if not shutil.which("localedef") or subprocess.run(made, capture_output=True).returncode:
            pytest.skip("this system cannot make a locale")
    folder = tmp_path / "jobs"
    folder.mkdir()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(os.fsencode(folder) + b"/" + name + b".png", format="PNG")
    ambient = {"LC_ALL": locale, "LOCPATH": str(tmp_path / "locales"), "FMNIST_DATA": str(data_dir)}
    # Python would else read the locale C as UTF-8.
    ambient |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", JOBS, name], cwd=folder, env={**os.environ, **ambient}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert sorted(os.listdir(os.fsencode(folder))) == [name, name + b".png"]
    run = RunDir(os.fsdecode(os.fsencode(folder) + b"/" + name))
    assert {path.name for path in run.tensorboard.iterdir()} == {"final"}
    assert {path.name for path in (run.tensorboard / "final").iterdir()} == {"train", "validation", "test"}
    printed = printable(os.fsdecode(name)) if locale == "C" else "café"
    strict_json(run.path)
    assert done.stdout.count(printed.encode("latin-1" if locale != "C" else "ascii", "backslashreplace")) >= 3
