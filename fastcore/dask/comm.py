"""``fastcore://`` and ``fastcores://``: messages of today's Dask over fastcore.

``distributed`` finds these backends by their entry points. Addresses, connectors and listeners are
those of its ``tcp://`` and ``tls://``, and so is what becomes a frame and what not; how the frames
travel is fastcore's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR
from ssl import SSLError
from typing import Any, Final

from distributed import Worker
from distributed.comm.addressing import get_address_host
from distributed.comm.core import CommClosedError
from distributed.comm.tcp import (
    TCP,
    TLS,
    BaseTCPBackend,
    BaseTCPListener,
    TCPConnector,
    TCPListener,
    TLSConnector,
    TLSListener,
    convert_stream_closed_error,
)
from distributed.comm.utils import from_frames, to_frames
from distributed.utils import get_ip, nbytes
from tornado import gen
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from fastcore.dask.frames import frames_of, message_of
from fastcore.engine_errors import BadFrame, BadMessage
from fastcore.limits import Limits
from fastcore.transport.tornado import channel_of, socket_of

__all__ = ["FastcoreBackend", "FastcoreComm", "FastcoresBackend", "FastcoresComm"]

_UNLIMITED: Final = 2**62
#: How large a message may be and how long a peer may take is Dask's business here.
_NO_LIMITS: Final = Limits(
    max_buffer_size=_UNLIMITED,
    max_values=_UNLIMITED,
    message_timeout=None,
    write_timeout=None,
    handshake_timeout=None,
    peer_timeout=None,
)


class FastcoreComm(TCP):
    """A comm of Dask whose messages go over a channel of fastcore.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        An open stream. Its bytes belong to fastcore from now on.
    local_addr, peer_addr : str
        Of its ends, with their scheme.
    deserialize : bool
        Whether messages are given as objects, or as they were serialised.
    """

    def __init__(self, stream: IOStream, local_addr: str, peer_addr: str, deserialize: bool = True) -> None:
        super().__init__(stream, local_addr, peer_addr, deserialize)
        self._channel = channel_of(stream, _NO_LIMITS, writable_values=True)

    async def read(self, deserializers: Any = None) -> Any:
        """Read a message.

        Parameters
        ----------
        deserializers : list of str, optional
            As Dask has them.

        Raises
        ------
        CommClosedError
            The connection has ended, or what arrived is no message. Whatever else is
            raised, a cancellation too, ends the connection: nobody could tell what of it
            was read.
        """
        if self.stream is None:
            raise CommClosedError(f"in {self}: closed here")
        try:
            frames = frames_of(await self._channel.read())
        except (StreamClosedError, SSLError) as error:
            self._forget(error)
        except (BadFrame, BadMessage, TypeError, ValueError) as error:
            self.abort()
            raise CommClosedError(
                f"in {self}: what arrived is no message of Dask over fastcore: {error}"
            ) from error
        except BaseException:
            self.abort()
            raise
        try:
            return await from_frames(
                frames,
                deserialize=self.deserialize,
                deserializers=deserializers,
                allow_offload=self.allow_offload,
            )
        except EOFError as error:
            self.abort()
            raise CommClosedError(f"in {self}: aborted on truncated data") from error

    async def write(self, msg: Any, serializers: Any = None, on_error: str = "message") -> int:
        """Write a message. It is on its way then; what is large of it must not change any more.

        Parameters
        ----------
        msg : object
            Whatever Dask can serialise.
        serializers, on_error : optional
            As Dask has them.

        Returns
        -------
        int
            Bytes in its frames.

        Raises
        ------
        CommClosedError
            The connection has ended. What fails to be serialised leaves it usable; any other
            error ends it.
        """
        if self.stream is None:
            raise CommClosedError(f"in {self}: closed here")
        frames = await to_frames(
            msg,
            allow_offload=self.allow_offload,
            serializers=serializers,
            on_error=on_error,
            context={"sender": self.local_info, "recipient": self.remote_info, **self.handshake_options},
            frame_split_size=self.max_shard_size,
        )
        message = message_of(frames)
        try:
            written = self._channel.write(message)
            if written.done():
                written.result()
        except StreamClosedError as error:
            self._forget(error)
        except BaseException:
            # Nobody could tell what of it has left.
            self.abort()
            raise
        return sum(map(nbytes, frames))

    def _forget(self, error: Exception) -> None:
        """Raise Dask's error for a connection that has ended."""
        self.stream = None
        self._closed = True
        convert_stream_closed_error(self, error)

    @gen.coroutine
    def close(self) -> Any:
        """Close the connection when all that was written has left."""
        # Not `async def`: who calls it at the end of a loop, and doesn't wait, gets no warning.
        stream, self.stream = self.stream, None
        self._closed = True
        if stream is None or stream.closed():
            return
        try:
            with suppress(OSError):
                yield self._channel.flushed()
                # The peer hears of the end even where a forked process has this socket too; over TLS
                # by the goodbye, for which this would leave no way out.
                if not stream.closed() and not isinstance(stream, SSLIOStream):
                    socket_of(stream).shutdown(SHUT_RDWR)
        finally:
            self._finalizer.detach()
            stream.close()


class FastcoresComm(FastcoreComm, TLS):
    """As :class:`FastcoreComm`, with TLS."""


class FastcoreConnector(TCPConnector):
    """Connects to ``fastcore://`` addresses."""

    prefix = "fastcore://"
    comm_class = FastcoreComm


class FastcoresConnector(TLSConnector):
    """Connects to ``fastcores://`` addresses."""

    prefix = "fastcores://"
    comm_class = FastcoresComm


class _FacingScheduler(BaseTCPListener):
    """A worker's listener on every interface is reached where the worker reaches its scheduler.

    In several networks it would give an address of another one, where its peers may have no way to.
    Workers of Dask say so to the listeners of ``tcp://`` and ``tls://``, and to no others.
    """

    def __init__(self, address: str, comm_handler: Callable[..., Any], *args: Any, **options: Any) -> None:
        worker = getattr(comm_handler, "__self__", None)
        if isinstance(worker, Worker):
            options.setdefault("default_host", get_ip(get_address_host(worker.scheduler.address)))
        super().__init__(address, comm_handler, *args, **options)


class FastcoreListener(_FacingScheduler, TCPListener):
    """Listens on ``fastcore://`` addresses."""

    prefix = "fastcore://"
    comm_class = FastcoreComm


class FastcoresListener(_FacingScheduler, TLSListener):
    """Listens on ``fastcores://`` addresses."""

    prefix = "fastcores://"
    comm_class = FastcoresComm


class FastcoreBackend(BaseTCPBackend):
    """The scheme ``fastcore://``."""

    _connector_class = FastcoreConnector
    _listener_class = FastcoreListener


class FastcoresBackend(BaseTCPBackend):
    """The scheme ``fastcores://``."""

    _connector_class = FastcoresConnector
    _listener_class = FastcoresListener
