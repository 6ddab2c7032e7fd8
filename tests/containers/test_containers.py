"""Jobs in real containers: their numbers, what they leave on the host, what they survive."""

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from conftest import COMPLETE, TINY, Start, end
from hosts import STRANGER, Host, checkout, docker, podman, public_folder, run
from processes import ROOT
from searching import table, until

pytestmark = pytest.mark.containers

LONG = "data.train_limit=3000 search.epochs=40 training.early_stopping.patience=40"


@pytest.fixture(scope="module", name="podman")
def podman_() -> Iterator[Host]:
    with checkout() as folder:
        yield podman(folder)


@pytest.fixture(scope="module", name="docker")
def docker_(podman: Host) -> Iterator[Host]:
    with docker(podman.checkout, podman) as host:
        yield host


@pytest.fixture(scope="module", params=["podman", "docker"])
def host(request: pytest.FixtureRequest) -> Host:
    return request.getfixturevalue(request.param)


@pytest.fixture
def results(host: Host) -> Iterator[Path]:
    """The caller's folder of run folders; in the end it is all that there is of the jobs, whatever was done to them."""
    with public_folder(host.user) as folder:
        yield folder
        assert host.left(folder) == []


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    """The run folder of a whole run with ENGINE=local and WORKERS=2."""
    folder = tmp_path_factory.mktemp("local")
    for job in (["tune", "--workers", "2"], ["train"]):
        end(start(folder, *job, "--recipe", "smoke", "--run", "run"), 0)
    end(start(folder, "eval", "run"), 0)
    return folder / "run"


def numbers(folder: Path) -> dict[str, Any]:
    """All that a run has computed."""
    history, metrics = (json.loads((folder / name).read_text()) for name in ("history.json", "metrics.json"))
    weights = [weight.tolist() for weight in keras.models.load_model(folder / "model.keras").get_weights()]
    return {
        "trials": table(folder),
        "best": json.loads((folder / "best.json").read_text()),
        "history": history["history"] | {"seconds": None},
        "metrics": {part: metrics[part] for part in ("validation", "test")},
        "weights": weights,
    }


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


def one_line(stderr: str, host: Host) -> str:
    """What is said, but for what make adds."""
    lines = [line for line in stderr.splitlines() if not line.startswith(("make: ***", f"{host.name}, image"))]
    assert len(lines) == 1, stderr
    return lines[0]


def reach(process: "subprocess.Popen[str]", text: str) -> None:
    """Wait until the log says `text`."""
    assert process.stderr
    assert any(text in line for line in process.stderr), f"{text!r} was not reached"


def test_all_gives_the_numbers_of_local_to_whoever_called(host: Host, results: Path, local: Path) -> None:
    made = host.make("all", "WORKERS=2", "RECIPE=smoke", f"RESULTS={results}")
    assert made.returncode == 0, made.stderr
    assert "no GPU: on the CPU" in made.stderr
    folder = results / "smoke-seed0"
    assert COMPLETE | {"search", "tb"} <= {path.name for path in folder.iterdir()}
    assert owners(results) == {host.user}
    assert numbers(folder) == numbers(local)
    recorded = json.loads((folder / "config.json").read_text())["jobs"]["train"]
    assert recorded["image"].startswith("fmnist:cpu")
    assert recorded["revision"]


@pytest.mark.parametrize("member", ["worker-0", "chief"])
def test_a_killed_member_is_started_again(host: Host, results: Path, member: str) -> None:
    with host.start("tune", "WORKERS=2", "RECIPE=smoke", f"RESULTS={results}", f"SET={LONG}") as process:
        reach(process, " 2/40")
        host("kill", "--signal", "KILL", host.running(results, member) or "")
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert f"{member} was interrupted (exit -9): starting it again" in stderr
    assert [row["status"] for row in table(results / "smoke-seed0")] == ["COMPLETED"] * 3


@pytest.mark.parametrize(
    ("arguments", "epoch"),
    [
        (["tune", "WORKERS=2", "RECIPE=smoke", f"SET={LONG}"], "trial 0, epoch  {}/40"),
        (["train", "RECIPE=regularized-mlp", "SET=data.train_limit=3000 training.epochs=40"], "epoch  {}/40"),
    ],
    ids=["tune", "train"],
)
def test_a_job_that_is_interrupted_goes_on(host: Host, results: Path, arguments: list[str], epoch: str) -> None:
    with host.start(*arguments, f"RESULTS={results}") as process:
        reach(process, epoch.format(2))
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (2, -signal.SIGINT)
    assert "SIGINT: stopping at the end of this epoch" in stderr
    assert host.left(results) == []
    made = host.make(*arguments, f"RESULTS={results}")
    assert made.returncode == 0, made.stderr
    assert "going on after epoch" in made.stderr


def test_what_a_killed_launcher_left_is_removed_by_the_next(host: Host, results: Path) -> None:
    arguments = ["tune", "WORKERS=2", "RECIPE=smoke", f"RESULTS={results}", f"SET={LONG}"]
    with host.start(*arguments) as process:
        reach(process, " 2/40")
        os.killpg(process.pid, signal.SIGKILL)
    assert len(host.left(results)) == 4
    made = host.make(*arguments)
    assert made.returncode == 0, made.stderr


def test_two_launchers_of_one_job(host: Host, results: Path) -> None:
    arguments = ["tune", "WORKERS=2", "RECIPE=smoke", f"RESULTS={results}", f"SET={LONG}"]
    with host.start(*arguments) as process:
        until(lambda: host.running(results, "chief"), 60)
        assert "is at work in containers already" in one_line(host.make(*arguments).stderr, host)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_container_is_confined(host: Host, results: Path) -> None:
    with host.start("tune", "WORKERS=2", "RECIPE=smoke", f"RESULTS={results}", "MEMORY=3g", f"SET={LONG}") as process:
        reach(process, " 2/40")
        (facts,) = json.loads(host("inspect", host.running(results, "worker-0") or ""))
        commands = [path.read_text() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert [mount["Destination"] for mount in facts["Mounts"] if mount["Type"] == "bind"] == [str(results)]
    limits = facts["HostConfig"]
    assert facts["Config"]["User"] == f"{host.user}:{host.user}"
    assert limits["ReadonlyRootfs"]
    assert (limits["Memory"], limits["PidsLimit"]) == (3 * 2**30, 2048)
    assert not facts.get("EffectiveCaps")
    assert "no-new-privileges" in str(limits["SecurityOpt"])
    token = next(text for text in facts["Config"]["Env"] if text.startswith("FMNIST_TOKEN="))
    assert not any(token.removeprefix("FMNIST_TOKEN=") in command for command in commands)


def test_exit_codes_come_through(host: Host, results: Path) -> None:
    for arguments, code in (("RECIPE=smoke", 64), ("RECIPE=baseline-mlp SET=training.epochs=1", 0)):
        made = host.make("train", *arguments.split(), f"RESULTS={results}")
        assert made.returncode == (2 if code else 0)
        assert f"Error {code}" in made.stderr or not code


def test_own_data_and_recipe_are_seen(host: Host, results: Path, data_dir: Path) -> None:
    own = results / "own.toml"
    own.write_text(TINY)
    data = results / "data"
    data.mkdir()
    for path in data_dir.glob("*ubyte*"):
        (data / path.name).write_bytes(path.read_bytes())
    here = os.path.relpath(results, host.checkout)
    made = host.make("tune", f"RECIPE={here}/own.toml", f"RESULTS={here}", f"DATA={here}/data")
    assert made.returncode == 0, made.stderr
    assert "own" in json.loads((results / "own-seed0" / "config.json").read_text())["recipe"]["name"]
    (data / "train-labels-idx1-ubyte.gz").unlink()
    for made in (host.make("data", f"DATA={data}"), host.make("data", FMNIST_DATA=f"{here}/data")):
        assert "train-labels" in one_line(made.stderr, host)


def test_a_run_may_be_a_link_in_a_folder_of_any_name(host: Host, results: Path) -> None:
    folder, elsewhere = results / "it's a, b: c", results / "elsewhere"
    for path in (folder, elsewhere):
        path.mkdir()
        os.chown(path, host.user, host.user)
    (folder / "linked").symlink_to("../elsewhere")
    its_own = (f"RESULTS={folder}", "RUN=linked")
    training = ("train", "RECIPE=baseline-mlp", "SET=training.epochs=1 data.train_limit=500")
    for arguments in (training, ("eval",), ("report",)):
        made = host.make(*arguments, *its_own)
        assert made.returncode == 0, made.stderr
    assert f"report: {folder}/linked/report.html" in made.stdout
    assert {"model.keras", "metrics.json", "report.html"} <= {path.name for path in elsewhere.iterdir()}


def test_what_cannot_be_done_is_said_in_one_line(host: Host, results: Path) -> None:
    job = ("train", "RECIPE=baseline-mlp")
    said = one_line(host.make(*job, f"RESULTS={results}", "IMAGE=fmnist:none").stderr, host)
    assert said.startswith(f"fmnist: {host.name} has no image fmnist:none; `make image")
    with public_folder(STRANGER + 1) as foreign:
        said = one_line(host.make(*job, f"RESULTS={foreign}").stderr, host)
        assert "cannot be written" in said or "cannot be made" in said
        assert list(foreign.iterdir()) == []
    said = one_line(host.make(*job, f"RESULTS={results}", f"DATA={results}/none").stderr, host)
    assert said == f"fmnist: {results}/none is missing"


def test_tensorboard(host: Host, results: Path) -> None:
    here = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answers() -> bool:
        try:
            with here.open("http://localhost:6006", timeout=5) as page:
                return b"TensorBoard" in page.read()
        except OSError:
            return False

    with host.start("tensorboard", f"RESULTS={results}") as process:
        until(answers, 60)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert not re.search("oneDNN|absl|cpu_feature_guard|cuda", stderr, re.IGNORECASE), stderr


def test_compose_runs_the_main_job(docker: Host, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://nowhere:1"}}}')
    with public_folder(docker.user) as results:
        compose = ["docker-compose", f"--file={ROOT / 'jobs' / 'compose.yaml'}"]
        variables = {"FMNIST_USER": f"{docker.user}:{docker.user}", "FMNIST_TOKEN": "secret", "RESULTS": str(results)}
        environment = {**docker.environment, **variables, "RECIPE": "smoke", "WORKERS": "2"}
        environment["DOCKER_CONFIG"] = str(tmp_path)
        try:
            variables_inside = run([*compose, "run", "-T", "--rm", "--no-deps", "chief", "env"], environment)
            assert "FMNIST_TOKEN=secret" in variables_inside
            assert "nowhere" not in variables_inside
            run([*compose, "up"], environment)
        finally:
            run([*compose, "down"], environment)
        assert COMPLETE | {"search", "tb"} <= {path.name for path in (results / "smoke-seed0").iterdir()}
        assert owners(results) == {docker.user}


def test_auto_takes_the_first_engine_that_answers(podman: Host) -> None:
    made = podman.make("devices", "ENGINE=auto", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert made.returncode == 0
    assert "ENGINE=auto: podman (docker does not answer" in made.stderr


def test_the_image_runs_as_anybody_and_holds_nothing_dangerous(host: Host, results: Path) -> None:
    results.chmod(0o777)
    options = ["--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--user=54321:54321"]
    mount = f"--mount=type=bind,source={results},target=/results"
    run = "/results/smoke-seed0"
    for job in (["tune", "--recipe", "smoke"], ["train", "--recipe", "smoke"], ["eval", run], ["report", run]):
        host("run", *options, mount, "fmnist:cpu", "env", "-u", "HOME", "fmnist", *job)
    assert owners(results) == {54321}
    scan = """
    find / -xdev '(' -type f -perm /6000 -o ! -type l ! -path /tmp -perm -o+w ')' -print
    find / -xdev -type f '(' -name '*.key' -o -name 'id_*' -o -name '.netrc' -o -name '*credential*' ')' -print
    """
    found = host("run", "--rm", "--user=0:0", "fmnist:cpu", "sh", "-c", scan).split()
    assert [path for path in found if not path.endswith((".py", ".pyc"))] == []
    labels = json.loads(host("image", "inspect", "fmnist:cpu"))[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.revision"]
