"""What a stranger can send to a port: HTTP/2 by hand, calls of which no message ever comes."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

CREATE = "/keras_tuner.Oracle/CreateTrial"
PROBE = "/grpc.health.v1.Health/Check"

_HEADERS, _SETTINGS, _END_HEADERS = 1, 4, 4


@contextlib.contextmanager
def silent_calls(address: str, path: str, calls: int, connections: int = 1) -> Iterator[list[socket.socket]]:
    """Hold connections open, on each of which this many calls of a method have begun, and said nothing."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(connections)
        ]
        for connection in opened:
            headers = _block(path)
            connection.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                + _frame(_SETTINGS, 0, 0, b"")
                + b"".join(_frame(_HEADERS, _END_HEADERS, 2 * call + 1, headers) for call in range(calls))
            )
        yield opened


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _block(path: str) -> bytes:
    """HPACK, each header a literal without index."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "chief",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(b"\0" + _literal(name) + _literal(value) for name, value in headers.items())


def _literal(text: str) -> bytes:
    assert len(text) < 127
    return bytes((len(text),)) + os.fsencode(text)
