"""``Monitor``: the port to look at."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from fastcore.addressing import listening_port
from fastcore.server.server import Server

if TYPE_CHECKING:
    from tornado.httpserver import HTTPServer

    from fastcore.monitor.watched import Watched

__all__ = ["Monitor"]


class Monitor:
    """A port to look at a running server, by HTTP.

    ``/`` is a page that shows what the server does, ``/stats`` its figures as JSON,
    ``/metrics`` the same for Prometheus (needs ``fastcore-rpc[prometheus]``), ``/health``
    answers 200 while the server should be sent calls and 503 otherwise, ``/live`` 200 whenever
    the loop turns. It is no part of the server's own port: it answers also while
    ``max_connections`` are open, and while the server ends.

    There is no password. On this machine's own addresses it answers only those who ask for
    it by such an address or as ``localhost``, so that no web page can have a name of its own
    point here.

    Parameters
    ----------
    watched : Server
        What to look at.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Monitor, Server
    >>> from tornado.httpclient import AsyncHTTPClient
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     async with Monitor(server) as monitor:
    ...         monitor.listen(0)
    ...         answer = await AsyncHTTPClient().fetch(f'http://127.0.0.1:{monitor.port}/health')
    ...         print(answer.body.decode())
    ...     server.stop()
    >>> asyncio.run(main())
    ready
    """

    def __init__(self, watched: Server | Watched) -> None:
        self._watched = watched
        self._http: HTTPServer | None = None
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._port is None:
            raise OSError("the monitor has no port yet; call .listen() first")
        return self._port

    def listen(self, port: int, address: str = "127.0.0.1") -> None:
        """Answer on a port.

        Parameters
        ----------
        port : int
            0 picks a free one.
        address : str
            Who can reach it: this machine only, unless told otherwise.

        Raises
        ------
        OSError
            If the port is taken.
        """
        # Here, as it takes longer to import than all of fastcore, and most programs look at nothing.
        from tornado.httpserver import HTTPServer

        from fastcore.monitor.pages import application

        if self._http is not None:
            raise RuntimeError(f"the monitor listens already, on port {self._port}")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.create_server((address, listening_port(port)), family=family, backlog=128)
        sock.setblocking(False)
        self._port = sock.getsockname()[1]
        http = HTTPServer(
            application(self._watched, address),
            # Nobody has much to say here, nor long.
            max_header_size=16 * 1024,
            max_body_size=1024,
            idle_connection_timeout=60,
        )
        http.add_sockets([sock])
        self._http = http

    async def close(self) -> None:
        """Stop answering, and close what is open."""
        if self._http is not None:
            self._http.stop()
            await self._http.close_all_connections()

    async def __aenter__(self) -> Monitor:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
