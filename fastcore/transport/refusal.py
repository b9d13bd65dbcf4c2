"""The end of a connection whose peer is told why it ends.

To close a socket while its peer still sends resets the connection, and the last
message could be lost with it. So the way out is closed first; what still comes is
received and dropped, until the peer has closed its side or a second is over.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from fastcore.errors import ConnectionLost

if TYPE_CHECKING:
    from fastcore.transport.tornado import Channel

__all__ = ["refuse"]

#: Seconds for the peer to read why.
_LAST_WORDS: Final = 1.0
_RECEIVE: Final = 64 * 1024


def refuse(channel: Channel, message: object) -> None:
    """Send a last message, then close the connection.

    Parameters
    ----------
    channel : Channel
        The connection; nobody else needs it any more.
    message : object
        The last message.
    """

    def drop() -> None:
        try:
            bare: Any = channel.stream.socket
            ended = not socket.socket.recv(bare, _RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            channel.close()

    def shut_down() -> None:
        if channel.lost is None:
            # Of the bare socket: an SSLSocket would end both ways.
            with suppress(OSError):
                bare: Any = channel.stream.socket
                socket.socket.shutdown(bare, socket.SHUT_WR)

    with suppress(ConnectionLost):
        channel.send(message)
        channel.divert(drop)
        channel.loop.call_later(_LAST_WORDS, channel.close)
        if channel.unsent:
            channel.on_drained = shut_down
        else:
            shut_down()
