"""Who knows the token, shown without sending it: a challenge, and keyed digests in the metadata of each call.

A worker signs what it says (method, message, its metadata of ours), and the chief signs its answer to just that call,
errors too. So a process on a dead chief's port learns no token, can give no answer that a worker believes, and can pass
a call on only as it is, and once. The challenge is the chief's: what was said to an earlier one is worth nothing.
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
"""Metadata of a call, trailing metadata of its answer."""
CHALLENGE = "fmnist-challenge"
"""Trailing metadata of a refusal: what the next proof has to be made for."""

_OURS = "fmnist-"
_UNKNOWN = "-"  # the challenge of a worker that has yet to hear one

Metadata = Iterable[tuple[str, str | bytes]]


class Unproven(Exception):
    """The answer is of somebody who does not know the token."""


class Prover:
    """A worker's side. Its calls are made one after the other."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._challenge = _UNKNOWN
        self._session = secrets.token_hex(16)
        self._count = 0
        self._last = ""

    def sign(self, method: str, message: bytes, metadata: Metadata) -> tuple[str, str]:
        """The proof of a call, another item of its metadata."""
        self._count += 1
        said = (self._challenge, self._session, str(self._count), _digest(message))
        self._last = _mac(self._token, "call", *said, method, metadata)
        return PROOF, " ".join((*said, self._last))

    def check(self, code: grpc.StatusCode, answer: bytes, metadata: Metadata) -> bool:
        """Check the answer to the call that was signed last; return whether it is to be made again.

        Args:
            answer: the message, or the details of an error.
            metadata: the answer's trailing one.

        Raises:
            Unproven: it is not the chief's.
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
    """A call of somebody who knows the token.

    Attributes:
        digest: of the message, which has yet to be read.
        timely: whether it answers this chief's challenge, for the first time.
    """

    token: str
    mac: str
    digest: str
    timely: bool

    def covers(self, message: bytes) -> bool:
        """Whether the call was signed with this message."""
        return hmac.compare_digest(self.digest.encode(), _digest(message).encode())

    def answer(self, code: grpc.StatusCode, answer: bytes, metadata: Metadata) -> tuple[str, str]:
        """The proof of the answer, another item of its trailing metadata."""
        return PROOF, _answer(self.token, self.mac, code, answer, metadata)


class Verifier:
    """The chief's side; for one thread."""

    def __init__(self, token: str) -> None:
        self.challenge = secrets.token_hex(16)
        self._token = token
        self._counts: dict[str, int] = {}  # the last call of each session

    def check(self, method: str, metadata: Metadata) -> Claim | None:
        """The claim of a call's metadata; None if the caller does not know the token."""
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
    """The keyed digest; the last of `said` is metadata, of which ours counts."""
    *texts, metadata = said
    ours = sorted(
        (name, value.decode("latin-1") if isinstance(value, bytes) else value)
        for name, value in metadata
        if name.startswith(_OURS) and name != PROOF
    )
    return hmac.new(token.encode(), json.dumps([texts, ours]).encode(), hashlib.sha256).hexdigest()
