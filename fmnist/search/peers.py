"""Limit the connections that an address may hold without a call that proves the token; gRPC has no such limit."""

import collections
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import unquote

logger = logging.getLogger(__name__)

STRANGERS = 128
"""Connections that an address may hold without proof. A worker proves the token at once, with its first call."""
SECONDS = 1.0
"""Seconds between two checks."""

_KNOWN = 4096  # remembered peers above which those without a connection are forgotten
_Peer = tuple[str, int]


class Peers:
    """The connections to the chief's port."""

    def __init__(self) -> None:
        self._known: set[_Peer] = set()
        self._since: dict[_Peer, float] = {}

    def know(self, peer: str) -> None:
        """Remember that a connection is a worker's.

        Args:
            peer: the peer's name in gRPC, such as `ipv4:127.0.0.1:4242` or `ipv6:%5B::1%5D:4242`.
        """
        host, _, port = unquote(peer).partition(":")[2].rpartition(":")
        if port.isdecimal():
            self._known.add((host.strip("[]"), int(port)))

    def close_excess(self, port: int) -> None:
        """Close the connections above the limit, the oldest first.

        Raises:
            OSError: this process has no file descriptor left.
        """
        handles = os.listdir("/proc/self/fd")
        if len(handles) <= STRANGERS and len(self._known) <= _KNOWN:
            return
        here = {peer: handle for handle in handles if (peer := _on(handle, port, lambda _connection: None))}
        self._known &= here.keys()
        now = time.monotonic()
        self._since = {peer: self._since.get(peer, now) for peer in here if peer not in self._known}
        strangers = collections.defaultdict(list)
        for peer in sorted(self._since, key=self._since.__getitem__):
            strangers[peer[0]].append(here[peer])
        for host, connections in strangers.items():
            if (excess := len(connections) - STRANGERS) > 0:
                for handle in connections[:excess]:
                    _on(handle, port, lambda connection: connection.shutdown(socket.SHUT_RDWR))
                logger.warning("closed %d connections of %s, which asked for nothing it may have", excess, host)


def _on(handle: str, port: int, action: Callable[[socket.socket], None]) -> _Peer | None:
    """Apply `action` to a connection to `port`; return its peer, or None if `handle` is not such a connection."""
    # The handle may be closed by now, or may not be a connected socket.
    with contextlib.suppress(OSError):
        own = os.dup(int(handle))
        try:
            connection = socket.socket(fileno=own)
        except OSError:
            os.close(own)
            raise
        with connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port:
                host, from_port, *_ = connection.getpeername()
                action(connection)
                return host.removeprefix("::ffff:"), from_port
    return None
