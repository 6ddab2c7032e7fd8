"""Who is at the chief's port and does not belong there, and who is there in its place."""

import shutil
import socket
import subprocess
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from searching import Search, log, until
from strangers import CREATE, PROBE, silent_calls

from fmnist.errors import EXIT_BAD_INPUT, BadInput
from fmnist.run.folder import RunDir
from fmnist.search import peers, proof
from fmnist.search.connection import Finder
from fmnist.search.roles import Notice, Role, from_environment

SEARCH = {"trials": 4, "epochs": 3}
TOKEN = "a-secret-of-some-length"
CHIEF, WORKER = Role("chief", token=TOKEN), Role("worker-0", token=TOKEN)


@pytest.mark.parametrize("token", [TOKEN, None], ids=["token", "no token"])
@pytest.mark.parametrize(
    ("path", "calls", "connections"), [(CREATE, 100, 1), (PROBE, 100, 1), ("/no/such", 100, 1), (CREATE, 16, 40)]
)
def test_calls_that_say_nothing_stop_nobody(
    search: Search, path: str, calls: int, connections: int, token: str | None
) -> None:
    search.chief(role=Role("chief", token=token))
    with silent_calls(search.address(), path, calls, connections):
        with search.call() as channel:
            probe = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert probe.status == health_pb2.HealthCheckResponse.SERVING
        search.worker(role=Role("worker-0", token=token))
        search.ends(seconds=20)
    search.is_whole()


def test_one_address_may_not_hold_all_connections(search: Search) -> None:
    search.chief(role=CHIEF)
    search.worker(role=WORKER, seconds=0.3)
    until(lambda: search.epochs("worker-0"))
    with silent_calls(search.address(), CREATE, 1, peers.STRANGERS + 100) as connections:
        until(lambda: sum(map(is_closed, connections)) >= 100)
        search.worker(role=Role("worker-1", token=TOKEN))
        search.ends()
    search.is_whole()
    assert "connections of 127.0.0.1" in log(search.path)
    assert "waiting for the chief" not in log(search.path)


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(2**16)
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


class Impostor(grpc.GenericRpcHandler):
    """Answers every call on a port that was the chief's, and keeps all that it is told."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.told: list[str] = []

    def service(self, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda message, context: self._answer(call, message, context))

    def _answer(self, call: Any, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.told.append(f"{call.method} {call.invocation_metadata} {message!r}")
        if self.code != grpc.StatusCode.OK:
            context.abort(self.code, "no")
        return b""


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND]
)
def test_an_impostor_on_the_dead_chiefs_port_learns_no_token_and_changes_nothing(
    search: Search, code: grpc.StatusCode
) -> None:
    chief = search.chief(role=CHIEF)
    search.worker(role=WORKER, seconds=0.1)
    until(lambda: search.epochs("worker-0"))
    address = search.address()
    search.kill(chief)
    impostor = Impostor(code)
    server = grpc.server(futures.ThreadPoolExecutor(2), (impostor,), options=[("grpc.so_reuseport", 0)])
    server.add_insecure_port(address)
    server.start()
    until(lambda: "does not know this worker's token" in log(search.path))
    server.stop(0).wait()
    search.chief(role=Role("chief", port=int(address.rpartition(":")[2]), token=TOKEN))
    search.ends()
    search.is_whole()
    assert impostor.told
    assert not [line for line in impostor.told if TOKEN in line]


CALL = ("/m", b"message", [("fmnist-worker", "w"), ("user-agent", "x")])


def challenged(verifier: proof.Verifier, prover: proof.Prover) -> None:
    """Let the prover learn the verifier's challenge."""
    claim = verifier.check(CALL[0], [*CALL[2], prover.sign(*CALL)])
    assert claim
    assert not claim.timely
    metadata = [(proof.CHALLENGE, verifier.challenge)]
    code = grpc.StatusCode.UNAUTHENTICATED
    assert prover.check(code, b"again", [*metadata, claim.answer(code, b"again", metadata)])


def test_a_proof_is_good_once_for_one_call_and_one_chief() -> None:
    verifier, prover = proof.Verifier(TOKEN), proof.Prover(TOKEN)
    challenged(verifier, prover)
    signed = prover.sign(*CALL)
    claim = verifier.check(CALL[0], [*CALL[2], signed])
    assert claim
    assert claim.timely
    assert claim.covers(b"message")
    assert not claim.covers(b"another")
    assert verifier.check("/other", [*CALL[2], signed]) is None
    assert verifier.check(CALL[0], [("fmnist-worker", "another"), signed]) is None
    assert proof.Verifier("another").check(CALL[0], [*CALL[2], signed]) is None
    again, later = verifier.check(CALL[0], [*CALL[2], signed]), proof.Verifier(TOKEN).check(CALL[0], [*CALL[2], signed])
    assert again
    assert later
    assert not again.timely
    assert not later.timely
    for nonsense in ("", "a b", "- - - - -", "é", f"{verifier.challenge} s x d m"):
        assert verifier.check(CALL[0], [(proof.PROOF, nonsense)]) is None


def test_an_answer_is_the_chiefs_or_nobodys() -> None:
    verifier, prover = proof.Verifier(TOKEN), proof.Prover(TOKEN)
    challenged(verifier, prover)
    claim = verifier.check(CALL[0], [*CALL[2], prover.sign(*CALL)])
    assert claim
    ok, lease = grpc.StatusCode.OK, ("fmnist-lease", "60.0")
    signed = claim.answer(ok, b"trial", [lease])
    assert not prover.check(ok, b"trial", [lease, signed])
    for code, answer, metadata in (
        (ok, b"other", [lease, signed]),
        (grpc.StatusCode.ABORTED, b"trial", [lease, signed]),
        (ok, b"trial", [("fmnist-lease", "0.0"), signed]),
        (ok, b"trial", [lease]),
    ):
        with pytest.raises(proof.Unproven):
            prover.check(code, answer, metadata)
    prover.sign(*CALL)
    with pytest.raises(proof.Unproven):
        prover.check(ok, b"trial", [lease, signed])


def make_certificate(folder: Path, name: str, *options: str) -> tuple[bytes, bytes]:
    """A certificate of localhost and its key, as PEM."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *subject]
        + [*(options or ("-nodes", "-days", "1")), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate.read_bytes(), key.read_bytes()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, bytes]]:
    folder = tmp_path_factory.mktemp("tls")
    return [make_certificate(folder, "one"), make_certificate(folder, "other")]


def test_tls_and_those_who_do_not_speak_it(search: Search, pairs: list[tuple[bytes, bytes]]) -> None:
    (certificate, key), (other, _) = pairs
    search.chief(role=Role("chief", "localhost", None, TOKEN, certificate, key))
    for trusted, reason in (None, "it speaks TLS; set FMNIST_TLS_CERTIFICATE"), (other, "its certificate is not the"):
        refused = search.worker(role=Role("worker-1", token=TOKEN, certificate=trusted))
        search.ends_alone(refused, EXIT_BAD_INPUT)
        assert reason in log(search.path)
    search.worker(role=Role("worker-0", token=TOKEN, certificate=certificate))
    search.ends()
    search.is_whole()


def test_a_worker_with_tls_ends_at_once_before_a_chief_without(
    search: Search, pairs: list[tuple[bytes, bytes]]
) -> None:
    search.chief(role=CHIEF)
    refused = search.worker(role=Role("worker-0", token=TOKEN, certificate=pairs[0][0]))
    search.ends_alone(refused, EXIT_BAD_INPUT)
    assert "it speaks no TLS" in log(search.path)


@pytest.mark.parametrize("token", [None, "another"])
def test_a_worker_with_another_token_than_the_chiefs_ends_at_once(search: Search, token: str | None) -> None:
    search.chief(role=Role("chief", token=token))
    search.ends_alone(search.worker(role=WORKER), EXIT_BAD_INPUT)
    assert "does not know this worker's token; give both the same FMNIST_TOKEN_FILE" in log(search.path)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"FMNIST_TOKEN": ""}, "FMNIST_TOKEN is set, but empty"),
        ({"FMNIST_TOKEN_FILE": ""}, "FMNIST_TOKEN_FILE is set, but empty"),
        ({"FMNIST_TOKEN": "  "}, "blanks"),
        ({"FMNIST_TOKEN": "two\nlines"}, "blanks"),
        ({"FMNIST_TOKEN": "t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken"}, "ASCII"),
        ({"FMNIST_TOKEN": "nul\0"}, "ASCII"),
        *(({"KERASTUNER_TUNER_ID": name}, "KERASTUNER_TUNER_ID=.* cannot be sent") for name in (
            "two\nlines", "w\N{LATIN SMALL LETTER O WITH DIAERESIS}rker", "caf\udce9",
        )),
        ({"KERASTUNER_TUNER_ID": "tab\t"}, "KERASTUNER_TUNER_ID"),
        ({"KERASTUNER_TUNER_ID": " worker"}, "KERASTUNER_TUNER_ID"),
        ({"KERASTUNER_TUNER_ID": "w" * 129}, "129 characters"),
        *(({"KERASTUNER_ORACLE_IP": host}, "neither an IP address nor") for host in (
            "a b", "http://chief", "chief:80", "[::1]", "300.1.1.1", "1.2.3", "-a.b", "a..b", "a" * 64, "\N{SNOWMAN}",
        )),
        ({"KERASTUNER_ORACLE_PORT": "65536"}, "is no port"),
        ({"KERASTUNER_ORACLE_PORT": "9" * 5000}, "is no port"),
        ({"FMNIST_TLS_KEY": ""}, "FMNIST_TLS_KEY is set, but empty"),
    ],
)  # fmt: skip
def test_what_cannot_become_right_is_refused_before_anybody_is_called(variables: dict[str, str], named: str) -> None:
    for role in ("worker-0", "chief"):
        with pytest.raises(BadInput, match=named) as refused:
            from_environment({"KERASTUNER_TUNER_ID": role, **variables})
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("host", ["chief", "a_b.example.org.", "10.0.0.1", "::1", "fe80::1%eth0", "1a", "10-0-0-1.pod"])
def test_a_hosts_name_or_address_may_have_these_forms(host: str) -> None:
    assert Role("worker-0", host=host).host == host


@pytest.mark.parametrize(
    ("role", "address"),
    [
        (Role("worker-0"), "node17:40123"),
        (Role("worker-0", host="10.0.0.5"), "10.0.0.5:40123"),
        (Role("worker-0", port=7000), "node17:7000"),
        (Role("worker-0", host="::1", port=7000), "[::1]:7000"),
        (Role("worker-0", host="0.0.0.0"), "node17:40123"),
    ],
)
def test_what_a_worker_is_not_told_of_the_chiefs_address_it_reads(tmp_path: Path, role: Role, address: str) -> None:
    """The name that a chief gives itself need not be known elsewhere."""
    run = RunDir(tmp_path)
    run.search.mkdir()
    Notice("node17:40123", 1).write(run)
    assert Finder(run, role, 1)._address() == address


def test_certificates_and_keys_that_cannot_work_are_refused(tmp_path: Path, pairs: list[tuple[bytes, bytes]]) -> None:
    (certificate, key), (_, other_key) = pairs
    locked = make_certificate(tmp_path, "locked", "-passout", "pass:x", "-days", "1")
    told = subprocess.run(["openssl", "req", "-help"], capture_output=True, text=True)
    dates = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
    sets_dates = "not_before" in told.stderr + told.stdout
    expired = [(*make_certificate(tmp_path, "old", "-nodes", *dates), "was valid until")] if sets_dates else []
    for one, other, named in (
        (b"", b"", "no certificate"),
        (b"", key, "no certificate"),
        (certificate, b"", "not the private key"),
        (b"garbage", key, "no certificate"),
        (b"\xff", key, "no certificate"),
        (certificate, b"garbage", "not the private key"),
        (certificate, other_key, "not the private key"),
        (key, certificate, "no certificate"),
        (certificate, None, "the chief needs both"),
        (None, key, "FMNIST_TLS_KEY is set, but not"),
        (*locked, "passphrase"),
        *expired,
    ):
        with pytest.raises(BadInput, match=named):
            Role("chief", certificate=one, key=other)
    for one in (b"", b"garbage", key):
        with pytest.raises(BadInput, match="no certificate"):
            Role("worker-0", certificate=one)
    assert Role("chief", certificate=certificate, key=key).is_chief
