"""Guard the chief: refuse calls of strangers, and bound what they cost."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from fmnist.search.peers import Peers
from fmnist.search.proof import CHALLENGE, Claim, Verifier

logger = logging.getLogger(__name__)

_PROBE = f"/{health.SERVICE_NAME}/Check"  # a probe of Kubernetes cannot send metadata
_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()


class Guard(grpc.aio.ServerInterceptor):
    """An interceptor that refuses calls without a proof of the token, and answers probes of the chief's health.

    Both happen in the event loop, before the call's message has arrived, and take no thread that a worker's call needs.
    """

    _QUIET_SECONDS = 10.0  # between two lines, so that a stranger cannot fill the log

    def __init__(self, token: str | None, peers: Peers) -> None:
        self._peers = peers
        self._verifier = Verifier(token) if token else None
        self._refused = 0
        self._logged = -self._QUIET_SECONDS
        # The handler of a stream of messages is called before the first one arrives.
        self._refusal = grpc.stream_unary_rpc_method_handler(self._refuse)
        self._health = grpc.stream_unary_rpc_method_handler(_serving)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], call: Any) -> Any:
        if call.method == _PROBE:
            return self._health
        if self._verifier is None:
            return await continuation(call)
        claim = self._verifier.check(call.method, call.invocation_metadata)
        if claim is None:
            return self._refusal
        if not claim.timely:
            return grpc.stream_unary_rpc_method_handler(_Challenge(claim, self._verifier.challenge).answer)
        handler = await continuation(call)
        return handler and grpc.unary_unary_rpc_method_handler(_Signing(claim, handler, self._peers))

    async def _refuse(self, messages: Any, context: Any) -> None:
        self._refused += 1
        if time.monotonic() - self._logged > self._QUIET_SECONDS:
            logger.warning("refused %s: wrong or no token (%d calls so far)", context.peer(), self._refused)
            self._logged = time.monotonic()
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED, "it takes no call without its token; set FMNIST_TOKEN_FILE"
        )


async def _serving(messages: Any, context: Any) -> bytes:
    """Answer a probe that asks whether the chief is alive; the answer is the same for every service."""
    return _SERVING


class _Challenge:
    """A handler that asks the caller to repeat the call with a proof for this chief's challenge."""

    def __init__(self, claim: Claim, challenge: str) -> None:
        self._claim = claim
        self._challenge = challenge

    async def answer(self, messages: Any, context: Any) -> None:
        code, details, metadata = grpc.StatusCode.UNAUTHENTICATED, "say it again", ((CHALLENGE, self._challenge),)
        proof = self._claim.answer(code, details.encode(), metadata)
        await context.abort(code, details, (*metadata, proof))


class _Signing:
    """A handler of unparsed messages around one of parsed messages: it verifies each request and signs each answer."""

    def __init__(self, claim: Claim, handler: Any, peers: Peers) -> None:
        self._claim = claim
        self._peers = peers
        self._handler = handler

    def __call__(self, message: bytes, context: Any) -> bytes:
        self._peers.know(context.peer())
        signing = _SigningContext(self._claim, context)
        if not self._claim.covers(message):
            signing.abort(grpc.StatusCode.UNAVAILABLE, "the message was changed on its way")
        try:
            request = self._handler.request_deserializer(message)
        except Exception:
            signing.abort(grpc.StatusCode.INVALID_ARGUMENT, "it is no message of this method")
        answer: bytes = self._handler.response_serializer(self._handler.unary_unary(request, signing))
        proof = self._claim.answer(grpc.StatusCode.OK, answer, signing.trailing)
        context.set_trailing_metadata((*signing.trailing, proof))
        return answer


class _SigningContext:
    """The parts of a call's context that the chief's service needs; it signs errors, too."""

    def __init__(self, claim: Claim, context: Any) -> None:
        self._claim = claim
        self._context = context
        self.trailing: tuple[tuple[str, str], ...] = ()
        self.invocation_metadata = context.invocation_metadata

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.trailing = tuple(metadata)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._context.abort(code, details, (self._claim.answer(code, details.encode(), ()),))
