"""A worker's connection to the chief: where that is, how it is called, and whether what answers is the chief."""

import uuid
from typing import Any

import grpc

from fmnist.errors import BadInput
from fmnist.run.folder import RunDir
from fmnist.search import roles, tls
from fmnist.search.chief import NotYours
from fmnist.search.proof import Prover, Unproven
from fmnist.search.roles import Role
from fmnist.search.service import INSTANCE, WORKER
from fmnist.search.stock import protos

SAID = {
    grpc.StatusCode.FAILED_PRECONDITION: NotYours,
    grpc.StatusCode.NOT_FOUND: NotYours,
    grpc.StatusCode.INVALID_ARGUMENT: ValueError,
    grpc.StatusCode.ABORTED: BadInput,
    grpc.StatusCode.UNAUTHENTICATED: BadInput,
}
"""What the chief says by an error; any other one is the way's, and may pass."""

_SERVICE = "/keras_tuner.Oracle/"


class SearchOver(Exception):
    """The chief has left, and the run folder says that the search is finished."""


class NotFound(Exception):
    """There is no chief, so far."""


class Finder:
    """Where the chief is, and how to call it."""

    def __init__(self, run: RunDir, role: Role, trials: int) -> None:
        self._run = run
        self._wanted = trials
        self.role = role
        self.metadata: tuple[tuple[str, str], ...] = ((WORKER, role.id), (INSTANCE, uuid.uuid4().hex))
        self.met = False
        """Whether the chief has answered; then token and TLS are right, and who refuses them is somebody else."""

    def check_over(self) -> None:
        """Raise SearchOver if the run folder says that the search is finished."""
        notice = roles.read_notice(self._run)
        if notice and notice.address is None and notice.trials >= self._wanted:
            raise SearchOver(f"the search in {self._run} is finished")

    def channel(self) -> grpc.Channel:
        address = self._address()
        options = [
            # Its own connection, with no memory of how long the last one has been failing.
            ("grpc.use_local_subchannel_pool", 1),
            # A site's proxy leads out of the site; the chief is within.
            ("grpc.enable_http_proxy", 0),
        ]
        if self.role.certificate:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.role.certificate), options)
        return grpc.insecure_channel(address, options)

    def check_hope(self) -> None:
        """Tell TLS that cannot work from a chief that is not there yet.

        Raises:
            BadInput: what listens at the chief's address is no chief for this worker.
        """
        host, _, port = self._address().rpartition(":")
        if not self.met and (reason := tls.objection(host.strip("[]"), int(port), self.role.certificate)):
            raise BadInput(f"the chief at {host}:{port} cannot be called: {reason}")

    def _address(self) -> str:
        if self.role.host and self.role.port:
            return roles.join(self.role.host, self.role.port)
        notice = roles.read_notice(self._run)
        if notice is None or notice.address is None:
            raise NotFound(f"none has written {self._run.chief}")
        return notice.address


class Connection:
    """Calls, each over the connection of the one before as long as that works; for one thread."""

    def __init__(self, find: Finder) -> None:
        self._find = find
        self._prover = Prover(find.role.token) if find.role.token else None
        self._channel: grpc.Channel | None = None
        self._messages = protos.get_service()

    def call(self, method: str, request: Any, metadata: tuple[Any, ...], timeout: float) -> tuple[Any, dict[str, Any]]:
        """The answer, and its trailing metadata.

        Raises:
            grpc.RpcError: as gRPC says.
            NotFound: nobody to call, or not the chief, though it was before.
            BadInput: not the chief, which has never been met: token or TLS is wrong.
        """
        message = request.SerializeToString()
        try:
            answered = self._try(method, message, metadata, timeout) or self._try(method, message, metadata, timeout)
        except grpc.RpcError as error:
            if error.code() not in SAID:
                self.close()
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                self._find.check_hope()
            raise
        except Unproven:
            answered = None
        if answered is None:
            self.close()
            problem = "what answers as the chief does not know this worker's token"
            if self._find.met:
                raise NotFound(problem)
            raise BadInput(f"{problem}; give both the same FMNIST_TOKEN_FILE")
        self._find.met = True
        answer, trailing = answered
        return getattr(self._messages, f"{method}Response").FromString(answer), dict(trailing)

    def close(self) -> None:
        if self._channel:
            self._channel.close()
            self._channel = None

    def _try(self, method: str, message: bytes, metadata: tuple[Any, ...], timeout: float) -> Any:
        """The answer and its trailing metadata; None if the chief wants the call again, with its own challenge."""
        if self._channel is None:
            self._channel = self._find.channel()
        path, metadata = _SERVICE + method, self._find.metadata + metadata
        if self._prover:
            metadata += (self._prover.sign(path, message, metadata),)
        try:
            answer, call = self._channel.unary_unary(path).with_call(message, metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            said = (error.details() or "").encode()
            if not self._prover or error.code() not in SAID:
                raise
            if self._prover.check(error.code(), said, error.trailing_metadata() or ()):
                return None
            self._find.met = True
            raise
        if self._prover:
            self._prover.check(grpc.StatusCode.OK, answer, call.trailing_metadata())
        return answer, call.trailing_metadata()
