"""Run the chief's gRPC server, in a thread of its own that waits for all calls at once.

A call takes a thread of the pool only when its whole message has arrived. So calls that send nothing, however many,
keep no other call waiting.
"""

import asyncio
import contextlib
import resource
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from typing import Any, TypeVar

import grpc

from fmnist.errors import BadInput
from fmnist.search import roles
from fmnist.search.guard import Guard
from fmnist.search.peers import SECONDS, Peers
from fmnist.search.roles import Role

THREADS = 64

_T = TypeVar("_T")

_GRACE = 0.2  # seconds for the calls that are in progress at the end
_MESSAGE_BYTES = 2**18
_METADATA_BYTES = 2**14
_STREAMS = 16  # calls of one connection at a time; a worker makes one
_HANDSHAKE_MS = 10_000
_IDLE_MS = 600_000  # a worker whose connection was closed makes another
_FILES = 256  # file descriptors that are left to the chief for its own work


@contextlib.contextmanager
def serving(role: Role, host: str, register: Callable[[Any], None]) -> Iterator[int]:
    """Serve on `host`, on the role's port or a free one, during the block; yield the port.

    Args:
        register: adds the services to the server.

    Raises:
        BadInput: the chief cannot listen on the address.
    """
    loop = asyncio.new_event_loop()
    peers = Peers()
    keeping: list[asyncio.Task[None]] = []  # the loop itself has only weak references to its tasks

    def do(coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def start() -> tuple[Any, int]:
        pool = futures.ThreadPoolExecutor(THREADS, thread_name_prefix="chief")
        server = grpc.aio.server(pool, interceptors=[Guard(role.token, peers)], options=_options())
        register(server)
        port = _listen(server, roles.join(host, role.port or 0), role)
        await server.start()
        if role.token:
            keeping.append(asyncio.create_task(keep_bounds(port)))
        return server, port

    async def keep_bounds(port: int) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            with contextlib.suppress(OSError):
                peers.close_excess(port)

    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()
    try:
        server, port = do(start())
        try:
            yield port
        finally:
            do(server.stop(_GRACE))
    finally:
        for task in keeping:
            loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()  # before gRPC closes the sockets that the loop reads, with the last reference to the server


def _listen(server: Any, address: str, role: Role) -> int:
    try:
        if role.certificate and role.key:
            return server.add_secure_port(address, grpc.ssl_server_credentials([(role.key, role.certificate)]))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise BadInput(f"the chief cannot listen on {address}: another process has it, or it is not ours") from error


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second chief on this port must fail
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.max_allowed_incoming_connections", _allow_connections()),
    ]


def _allow_connections() -> int:
    """Raise this process's limit of open files: each worker has two connections, and a usual limit is 1024.

    Returns:
        The greatest number of connections at a time.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files = most if most != resource.RLIM_INFINITY else 2**20
    return max(files // 2, min(files - _FILES, 2**20))
