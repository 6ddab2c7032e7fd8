"""Who may call the chief."""

import hmac
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health

logger = logging.getLogger(__name__)

TOKEN = "authorization"
"""A caller's metadata that holds the token, as `Bearer TOKEN`."""

_PROBE = f"/{health.SERVICE_NAME}/Check"  # Kubernetes' probes can send no metadata


class Guard(grpc.ServerInterceptor):
    """Refuses every call without the token, before its message is looked at, but for probes of the chief's health."""

    _QUIET_SECONDS = 10.0  # a stranger must not fill the log

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token else None
        self._refused = 0
        self._logged = -self._QUIET_SECONDS
        self._handler = grpc.unary_unary_rpc_method_handler(self._refuse)

    def intercept_service(self, continuation: Callable[[Any], Any], call: Any) -> Any:
        if self._expected is None or call.method == _PROBE:
            return continuation(call)
        given = next((item.value for item in call.invocation_metadata if item.key == TOKEN), "")
        return continuation(call) if hmac.compare_digest(given.encode(), self._expected) else self._handler

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> None:
        self._refused += 1
        if time.monotonic() - self._logged > self._QUIET_SECONDS:
            logger.warning("refused %s: wrong or no token (%d calls so far)", context.peer(), self._refused)
            self._logged = time.monotonic()
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "it takes no call without its token; set FMNIST_TOKEN_FILE")
