"""The process of a server: its socket, its connections, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from codellm.errors import AddressError
from codellm.serve.pool import Pool

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_SECONDS = 30.0
"""What a client has for the head of a request, once it has connected or begun one."""

SEND_SECONDS = 60.0
"""How long a client may leave unread what no buffer takes any more."""

IDLE_SECONDS = 75.0
"""How long a connection may wait for its next request."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that has an address, at which it does not listen yet. Port 0 takes any that is free.

    Raises:
        AddressError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise AddressError(f"{host}:{port} cannot be had ({why}); choose others with --host and --port") from error
    return listener


def address(listener: socket.socket) -> str:
    """The beginning of the URLs of a server with this socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Connection(H11Protocol):
    """A connection that is dropped where its client neither sends a request nor reads the answer."""

    head_seconds: ClassVar[float] = HEAD_SECONDS
    send_seconds: ClassVar[float] = SEND_SECONDS
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request, whatever its type says
        if cycle is not None and not cycle.response_complete:
            self._wait(None)
        elif self._patience is None:  # what comes drop by drop gets no more time
            self._wait(self.head_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(self.send_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait(None)

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """One that says when it listens, and leaves signals to `serve`."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: ASGIApp,
    pool: Pool,
    listener: socket.socket,
    grace: float,
    ready: Callable[[], None],
    connection: type[Connection] = Connection,
) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish what was taken, for at most `grace` seconds.

    `ready` is called once the socket listens. A second signal ends what still runs. Clients are given the time that
    `connection` gives them.
    """
    options: dict[str, Any] = {"log_config": None, "log_level": "critical", "access_log": False}
    config = uvicorn.Config(
        app, http=connection, ws="none", lifespan="off", server_header=False, timeout_keep_alive=int(IDLE_SECONDS),
        timeout_graceful_shutdown=int(grace) + 5, **options,
    )  # fmt: skip
    server, loop = Server(config, ready), asyncio.get_running_loop()

    def stop() -> None:
        if server.should_exit:
            pool.abort()
            return
        server.should_exit = True
        pool.stop()
        loop.call_later(grace, pool.abort)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    pool.start()
    try:
        await server.serve(sockets=[listener])
    finally:
        pool.abort()
