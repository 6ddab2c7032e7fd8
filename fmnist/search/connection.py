"""Connect a worker to the chief: find the chief's address, make calls, and verify that the chief answers them."""

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
"""The exceptions for the chief's own errors, by gRPC status. Any other status is a network failure, which may pass."""

_SERVICE = "/keras_tuner.Oracle/"


class SearchOver(Exception):
    """The chief has ended, and according to the run folder the search is finished."""


class NotFound(Exception):
    """No chief has been found yet."""


class Finder:
    """The address of the chief, and the settings of a connection to it."""

    def __init__(self, run: RunDir, role: Role, trials: int) -> None:
        self._run = run
        self._wanted = trials
        self.role = role
        self.metadata: tuple[tuple[str, str], ...] = ((WORKER, role.id), (INSTANCE, uuid.uuid4().hex))
        self.met = False
        """Whether the chief has answered before. Then token and TLS are right; only another process refuses them."""

    def check_over(self) -> None:
        """Raise SearchOver if the search is finished according to the run folder."""
        notice = roles.read_notice(self._run)
        if notice and notice.address is None and notice.trials >= self._wanted:
            raise SearchOver(f"the search in {self._run} is finished")

    def channel(self) -> grpc.Channel:
        address = self._address()
        options = [
            # A connection of its own, which does not wait because an earlier one has been failing.
            ("grpc.use_local_subchannel_pool", 1),
            # A site's proxy is for addresses outside the site; the chief is inside.
            ("grpc.enable_http_proxy", 0),
        ]
        if self.role.certificate:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.role.certificate), options)
        return grpc.insecure_channel(address, options)

    def check_hope(self) -> None:
        """Check that TLS works with the process at the chief's address, unless the chief has answered before.

        Raises:
            BadInput: a process listens there, but TLS cannot work between it and this worker.
        """
        host, _, port = self._address().rpartition(":")
        if not self.met and (reason := tls.objection(host.strip("[]"), int(port), self.role.certificate)):
            raise BadInput(f"the chief at {host}:{port} cannot be called: {reason}")

    def _address(self) -> str:
        """Return the chief's address: what the role does not say of it, the run folder does."""
        # One environment may serve all processes of a search: the chief's to listen on everywhere is no address.
        host = None if self.role.host in roles.EVERYWHERE else self.role.host
        if host and self.role.port:
            return roles.join(host, self.role.port)
        notice = roles.read_notice(self._run)
        if notice is None or notice.address is None:
            raise NotFound(f"none has written {self._run.chief}")
        found, _, port = notice.address.rpartition(":")
        return roles.join(host or found.strip("[]"), self.role.port or int(port))


class Connection:
    """Calls to the chief, over one connection for as long as it works. For one thread."""

    def __init__(self, find: Finder) -> None:
        self._find = find
        self._prover = Prover(find.role.token) if find.role.token else None
        self._channel: grpc.Channel | None = None
        self._messages = protos.get_service()

    def call(self, method: str, request: Any, metadata: tuple[Any, ...], timeout: float) -> tuple[Any, dict[str, Any]]:
        """Call a method; return the answer and its trailing metadata.

        Raises:
            grpc.RpcError: the call failed.
            NotFound: no address of a chief is known, or another process answers where the chief did before.
            BadInput: the answer is not the chief's, and the chief has never answered: token or TLS is wrong.
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
        """Return the answer and its trailing metadata; None if the call must be repeated with the chief's challenge."""
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
