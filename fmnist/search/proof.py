"""Prove that chief and worker know the token without sending it: by a challenge, and keyed digests in each call.

A worker signs the method, the message and the `fmnist-` metadata of a call (HMAC-SHA256), and the chief signs its
answer to this very call, also an error. So a process on a dead chief's port does not learn the token, cannot give an
answer that a worker accepts, and can pass a call on only unchanged, and only once. Each chief has its own challenge, so
a call to an earlier chief is worthless to a later one.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

PROOF = "fmnist-proof"
"""Name of the proof in the metadata of a call, and in the trailing metadata of its answer."""
CHALLENGE = "fmnist-challenge"
"""Name, in the trailing metadata of a refusal, of the challenge for which the next proof must be made."""

_OURS = "fmnist-"
_UNKNOWN = "-"  # challenge of a worker that has not received one yet

Metadata = Iterable[tuple[str, str | bytes]]


class Unproven(Exception):
    """The answer comes from a process that does not know the token."""


class Prover:
    """The worker's side of the proof. It makes one call after the other."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._challenge = _UNKNOWN
        self._session = secrets.token_hex(16)
        self._count = 0
        self._last = ""

    def sign(self, method: str, message: bytes, metadata: Metadata) -> tuple[str, str]:
        """Return the proof of a call, to be added to its metadata."""
        self._count += 1
        said = (self._challenge, self._session, str(self._count), _digest(message))
        self._last = _mac(self._token, "call", *said, method, metadata)
        return PROOF, " ".join((*said, self._last))

    def check(self, code: grpc.StatusCode, answer: bytes, metadata: Metadata) -> bool:
        """Check the answer to the call that was signed last; return whether the call must be repeated.

        Args:
            answer: the message, or the details of an error.
            metadata: the trailing metadata of the answer.

        Raises:
            Unproven: the answer is not the chief's.
        """
        items = dict(metadata)
        expected = _answer(self._token, self._last, code, answer, items.items())
        if not hmac.compare_digest(str(items.get(PROOF, "")).encode(), expected.encode()):
            raise Unproven
        if new := items.get(CHALLENGE):
            self._challenge = str(new)
        return new is not None


@dataclass(frozen=True)
class Claim:
    """A call whose maker knows the token.

    Attributes:
        token: the shared secret.
        mac: the keyed digest that signs the call.
        digest: SHA-256 of the message, which is not read yet, in hexadecimal.
        timely: whether the call is made for this chief's challenge, and for the first time.
    """

    token: str
    mac: str
    digest: str
    timely: bool

    def covers(self, message: bytes) -> bool:
        """Tell whether the call was signed with this message."""
        return hmac.compare_digest(self.digest.encode(), _digest(message).encode())

    def answer(self, code: grpc.StatusCode, answer: bytes, metadata: Metadata) -> tuple[str, str]:
        """Return the proof of the answer, to be added to its trailing metadata."""
        return PROOF, _answer(self.token, self.mac, code, answer, metadata)


class Verifier:
    """The chief's side of the proof. For one thread."""

    def __init__(self, token: str) -> None:
        self.challenge = secrets.token_hex(16)
        self._token = token
        self._counts: dict[str, int] = {}  # number of the last call of each session

    def check(self, method: str, metadata: Metadata) -> Claim | None:
        """Check the proof in a call's metadata and return its claim; None if the caller does not know the token."""
        items = dict(metadata)
        *said, mac = str(items.pop(PROOF, "")).split(" ")
        expected = _mac(self._token, "call", *said, method, items.items())
        if len(said) != 4 or not hmac.compare_digest(mac.encode(), expected.encode()):
            return None
        challenge, session, count, digest = said
        timely = challenge == self.challenge and int(count) > self._counts.get(session, 0)
        if timely:
            self._counts[session] = int(count)
        return Claim(self._token, mac, digest, timely)


def _answer(token: str, call: str, code: grpc.StatusCode, answer: bytes, metadata: Metadata) -> str:
    return _mac(token, "answer", call, code.name, _digest(answer), metadata)


def _digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def _mac(token: str, *said: Any) -> str:
    """Return the HMAC-SHA256 of all items of `said`, in hexadecimal.

    The last item is metadata, of which only names with the prefix `fmnist-` count.
    """
    *texts, metadata = said
    ours = sorted(
        (name, value.decode("latin-1") if isinstance(value, bytes) else value)
        for name, value in metadata
        if name.startswith(_OURS) and name != PROOF
    )
    return hmac.new(token.encode(), json.dumps([texts, ours]).encode(), hashlib.sha256).hexdigest()
