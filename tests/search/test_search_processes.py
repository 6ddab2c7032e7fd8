"""The faults that a distributed search survives: real processes, signals and connections."""

import contextlib
import functools
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import searching
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keras_tuner.src import protos
from processes import contents, python
from searching import Search, diary, log, process, recipe, table, until
from test_bad_input import mounted

from fmnist.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from fmnist.recipe.schema import Recipe
from fmnist.search.roles import Role
from tools.chaos import disturbed_search

TRIALS, EPOCHS = 8, 4
SEARCH = {"trials": TRIALS, "epochs": EPOCHS}
SHORT = 0.6  # seconds of a lease that is to run out


def repeated(path: Path) -> int:
    """How many epochs were trained more than once."""
    epochs = [(trial, epoch) for trial, epoch, _ in diary(path)]
    return len(epochs) - len(set(epochs))


@pytest.mark.parametrize("epoch", [1, EPOCHS - 2], ids=["in mid-trial", "between the last two reports"])
def test_a_killed_worker_comes_back_under_its_id(search: Search, epoch: int) -> None:
    search.chief()
    killed = search.worker("worker-0", seconds=0.1)
    search.worker("worker-1")
    until(lambda: epoch in [number for _, number in search.epochs("worker-0")])
    search.kill(killed)
    trial = search.epochs("worker-0")[-1][0]
    search.worker("worker-0")
    search.ends()
    search.is_whole()
    assert {name for number, _, name in diary(search.path) if number == trial} == {"worker-0"}
    assert repeated(search.path) <= 1  # the epoch in hand


def test_a_killed_worker_never_comes_back(search: Search) -> None:
    search.chief(lease=SHORT)
    killed = search.worker("worker-0", seconds=0.1)
    until(lambda: search.epochs("worker-0"))
    search.kill(killed)
    search.worker("worker-1")
    search.ends()
    search.is_whole()
    assert "worker-0 is silent" in log(search.path)


def test_the_late_answer_of_a_worker_that_stood_still_is_refused(search: Search) -> None:
    search.chief(lease=SHORT)
    late = search.worker("worker-0", seconds=0.1)
    until(lambda: search.epochs("worker-0"))
    assert late.pid
    os.kill(late.pid, signal.SIGSTOP)
    trial = search.epochs("worker-0")[0][0]
    search.worker("worker-1", seconds=0.3)
    until(lambda: trial in [number for number, _ in search.epochs("worker-1")])
    os.kill(late.pid, signal.SIGCONT)
    search.ends()
    search.is_whole()
    assert f"{late.pid} trial {trial} is not with worker-0: leaving it" in log(search.path)


def test_a_worker_that_is_busy_for_longer_than_its_lease_keeps_its_trial(search: Search) -> None:
    search.chief(lease=SHORT)
    search.worker("worker-0", seconds=2 * SHORT)
    until(lambda: search.epochs("worker-0"))
    search.worker("worker-1")
    search.ends()
    search.is_whole()
    assert "silent" not in log(search.path)


def test_a_killed_chief_is_restarted_and_the_workers_notice_nothing(search: Search) -> None:
    for alive in (2, 8, 18):
        chief = search.chief()
        if not search.epochs("worker-0"):
            search.worker("worker-0", seconds=0.1)
            search.worker("worker-1", seconds=0.1)
        until(functools.partial(lambda alive: len(diary(search.path)) > alive, alive))
        search.kill(chief)
    search.chief()
    search.ends()
    search.is_whole()
    assert repeated(search.path) == 0


@pytest.mark.parametrize("at", [10, *(pytest.param(at, marks=pytest.mark.faults) for at in (3, 21))])
def test_chief_and_workers_are_killed_and_restarted(search: Search, at: int) -> None:
    for round_ in range(2):
        chief = search.chief()
        workers = search.workers()
        if round_ == 0:
            until(lambda: len(diary(search.path)) > at)
            search.kill(chief, *workers)
    search.ends()
    search.is_whole()
    assert repeated(search.path) <= 2


def test_a_stop_of_all_ends_with_75_and_the_search_goes_on(search: Search) -> None:
    search.chief()
    search.workers(seconds=0.1)
    until(lambda: len(diary(search.path)) > 5)
    for one in search.running:
        one.terminate()
    search.ends(EXIT_INTERRUPTED, seconds=5)
    search.chief()
    search.workers()
    search.ends()
    search.is_whole()


@pytest.mark.faults
@pytest.mark.parametrize("oracle", ["random", "asha"])
def test_a_search_through_random_kills(tmp_path: Path, oracle: str) -> None:
    """`make chaos` does it at length."""
    disturbed_search(tmp_path, seed=0, kills=8, oracle=oracle)


@pytest.fixture
def network() -> Iterator[tuple[str, str, Callable[[str], None]]]:
    """A namespace that is one cable away: its name, this end's address, and what pulls and plugs the cable."""
    if not shutil.which("ip"):
        pytest.skip("no ip command")
    name, address = f"fmnist{os.getpid()}", "198.18.77.1"

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    try:
        try:
            ip(f"netns add {name}")
            ip(f"link add fmnist0 type veth peer name fmnist1 netns {name}")
        except subprocess.CalledProcessError:
            pytest.skip("no network namespaces here")
        ip(f"address add {address}/30 dev fmnist0")
        ip(f"-n {name} address add 198.18.77.2/30 dev fmnist1")
        ip(f"-n {name} link set fmnist1 up")
        ip("link set fmnist0 up")
        yield name, address, lambda state: ip(f"link set fmnist0 {state}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.faults
def test_a_worker_behind_a_cut_network_loses_its_trial_and_comes_back(
    search: Search, network: tuple[str, str, Callable[[str], None]]
) -> None:
    name, address, cable = network
    search.chief(lease=SHORT, role=Role("chief", host=address, token="secret"))
    far = search.worker(role=Role("worker-0", token="secret"), network=name, seconds=0.1)
    until(lambda: search.epochs("worker-0"))
    cable("down")
    trial = search.epochs("worker-0")[-1][0]
    search.worker(role=Role("worker-1", token="secret"), seconds=0.8)
    until(lambda: trial in [number for number, _ in search.epochs("worker-1")])
    until(lambda: f"{far.pid} waiting for the chief" in log(search.path), 60)
    cable("up")
    search.ends(seconds=60)
    search.is_whole()
    assert f"trial {trial} is not with worker-0: leaving it" in log(search.path)
    assert len({number for number, _ in search.epochs("worker-0")}) > 1


def test_a_worker_that_finds_its_chief_soon_says_nothing_of_it(search: Search) -> None:
    search.worker("worker-0")
    search.chief()
    search.ends()
    search.is_whole()
    assert "waiting for the chief" not in log(search.path)


def test_a_worker_may_start_before_the_chief_and_after_the_end(search: Search) -> None:
    search.worker("worker-0", usual=0.0)
    until(lambda: "waiting for the chief" in log(search.path))
    search.chief()
    search.ends()
    search.is_whole()
    trained = diary(search.path)
    search.worker("worker-1")
    search.ends(seconds=10)
    assert diary(search.path) == trained


def test_a_worker_that_has_no_chief_gives_up_in_bounded_time(search: Search) -> None:
    search.worker(patience=0.5)
    search.ends(EXIT_INTERRUPTED, seconds=10)
    assert "no chief for" in log(search.path)


def test_of_two_workers_under_one_id_the_later_works(search: Search) -> None:
    search.chief()
    first = search.worker("worker-0", seconds=0.1)
    until(lambda: search.epochs("worker-0"))
    search.worker("worker-0")
    search.ends_alone(first, EXIT_BAD_INPUT)
    search.ends()
    search.is_whole()
    assert f"{first.pid} refused: another process has taken the id worker-0 over" in log(search.path)


@pytest.mark.parametrize(("fault", "reason"), [("memory", "out of memory"), ("error", "no luck"), ("nan", "NaN")])
def test_three_failures_in_a_row_end_nothing(search: Search, fault: str, reason: str) -> None:
    search.chief()
    search.workers(fail=f"{fault}:3")
    search.ends()
    found = table(search.path)
    assert [row["status"] for row in found] == ["FAILED"] * 3 + ["COMPLETED"] * (TRIALS - 3)
    assert all(reason in row["message"] for row in found[:3])
    assert found[3:] == table(search.path.with_name("whole"))[3:]


def test_a_search_whose_every_trial_fails_ends(search: Search) -> None:
    search.chief()
    search.worker(fail=f"error:{TRIALS}")
    search.ends()
    assert {row["status"] for row in table(search.path)} == {"FAILED"}


@pytest.mark.faults
def test_a_full_disk_at_the_chief_costs_time_and_nothing_else(search: Search) -> None:
    with mounted(search.path, "size=1m"):
        search.chief()
        search.workers(seconds=0.1)
        until(lambda: len(diary(search.path)) > 5)
        filler = search.path / "filler"
        filler.touch()
        while (room := shutil.disk_usage(search.path).free) > 0:
            with filler.open("ab") as file:
                file.write(bytes(room))
        # For as long as each worker comes back a few times.
        until(lambda: log(search.path).count("cannot be written") > 6)
        filler.unlink()
        search.ends()
        search.is_whole()


def test_a_file_damaged_while_the_chief_was_down(search: Search) -> None:
    chief = search.chief()
    search.worker(seconds=0.1)
    until(lambda: len(diary(search.path)) > 5)
    search.kill(chief)
    damaged = search.path / "search" / "journal"
    lines = damaged.read_bytes().splitlines(keepends=True)
    ended = next(number for number, line in enumerate(lines) if b"COMPLETED" in line)
    damaged.write_bytes(b"".join([*lines[:ended], b"x" + lines[ended], *lines[ended + 1 :]]))
    search.chief()
    search.ends()
    search.is_whole()
    assert f"{damaged} is damaged" in log(search.path)


METHODS = ["GetSpace", "UpdateSpace", "CreateTrial", "UpdateTrial", "EndTrial", "GetTrial", "GetBestTrials", "Unknown"]


def test_garbage_on_the_port_ends_nothing(search: Search) -> None:
    search.chief()
    search.worker(seconds=0.1)
    noise = random.Random(0)
    http_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"
    for message in (b"", b"GET / HTTP/1.1\r\n\r\n", http_2, noise.randbytes(9999)):
        with search.connect() as connection:
            connection.sendall(message)
    with search.call() as channel:
        for method in METHODS:
            for message in (noise.randbytes(20), noise.randbytes(2**10), bytes(2**19)):
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(f"/keras_tuner.Oracle/{method}")(message, timeout=10)
        stub, of = protos.get_service_grpc().OracleStub(channel), protos.get_service()
        for call, request in (
            (stub.CreateTrial, of.CreateTrialRequest()),
            (stub.CreateTrial, of.CreateTrialRequest(tuner_id="x" * 10_000)),
            (stub.UpdateTrial, of.UpdateTrialRequest()),
            (stub.UpdateTrial, of.UpdateTrialRequest(trial_id="0", metrics={"": float("nan")}, step=-(2**63))),
            (stub.EndTrial, of.EndTrialRequest()),
            (stub.GetTrial, of.GetTrialRequest(trial_id="../../etc/passwd")),
        ):
            with pytest.raises(grpc.RpcError):
                call(request, timeout=10)
    search.ends()
    search.is_whole()


def test_a_stranger_changes_nothing(search: Search) -> None:
    search.chief(role=Role("chief", token="secret"))
    before = contents(search.path)
    with search.call() as channel:
        stub, of = protos.get_service_grpc().OracleStub(channel), protos.get_service()
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "Bearer "),)):
            with pytest.raises(grpc.RpcError) as refusal:
                stub.CreateTrial(of.CreateTrialRequest(tuner_id="stranger"), metadata=metadata, timeout=10)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/keras_tuner.Oracle/CreateTrial")(bytes(2**19), metadata=metadata, timeout=10)
    assert contents(search.path) == before
    assert log(search.path).count("wrong or no token") == 1
    search.ends_alone(search.worker(role=Role("worker-9", token="guess")), EXIT_BAD_INPUT)
    search.worker(role=Role("worker-0", token="secret"))
    search.ends()
    search.is_whole()


def test_a_probe_of_its_health_needs_no_token(search: Search) -> None:
    search.chief(role=Role("chief", token="secret"))
    with search.call() as channel:
        stub, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
        assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refusal:
            next(stub.Watch(request, timeout=10))
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
    search.worker(role=Role("worker-0", token="secret"))
    search.ends()


def frugal_chief(path: Path, of: Recipe) -> None:
    """A chief from a shell that allows it few files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
    searching.chief(path, of)


def test_a_chief_takes_more_workers_than_its_shell_allows_files(search: Search) -> None:
    search.running.append(process(frugal_chief, search.path, search.of))
    until(search.address)
    with contextlib.ExitStack() as connections:
        for _ in range(300):
            connections.enter_context(search.connect())
        search.worker(patience=5.0)
        search.ends()


def test_a_second_chief_is_refused(search: Search, tmp_path: Path) -> None:
    search.chief()
    port = int(search.address().rpartition(":")[2])
    same_folder = process(searching.chief, search.path, search.of)
    same_port = process(searching.chief, tmp_path / "other", search.of, Role("chief", port=port))
    open_to_all = process(searching.chief, tmp_path / "open", search.of, Role("chief", host="0.0.0.0"))
    for refused in (same_folder, same_port, open_to_all):
        refused.join(20)
        assert refused.exitcode == EXIT_BAD_INPUT
    assert "refused: another `tune` is at work" in log(search.path)
    assert f"refused: the chief cannot listen on 127.0.0.1:{port}" in log(tmp_path / "other")
    assert "FMNIST_TOKEN_FILE" in log(tmp_path / "open")
    search.worker()
    search.ends()
    search.is_whole()


@pytest.mark.parametrize("oracle", ["random", pytest.param("asha", marks=pytest.mark.faults)])
def test_a_stock_keras_tuner_worker_completes_trials(tmp_path: Path, oracle: str) -> None:
    search = Search(tmp_path, recipe(oracle, trials=3))
    search.chief()
    host, _, port = search.address().rpartition(":")
    environment = {"KERASTUNER_TUNER_ID": "tuner0", "KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    # It would call the chief by the proxy of a site.
    environment["no_grpc_proxy"] = host
    code = Path(__file__).with_name("stock_worker.py").read_text()
    stock = python(code, tmp_path / "stock", env={**os.environ, **environment})
    assert stock.returncode == 0, stock.stderr
    search.ends()
    found, whole = table(search.path), table(tmp_path / "whole")
    assert [row["status"] for row in found] == ["COMPLETED"] * 3
    for row in found:
        assert 0 <= float(row["score"]) <= 1
    hyperparameters = [name for name in whole[0] if "." in name]
    assert [[row[name] for name in hyperparameters] for row in found] == [
        [row[name] for name in hyperparameters] for row in whole
    ]
