"""Two streams that are connected with each other, without a server."""

import socket

from tornado.iostream import IOStream


def stream_pair() -> tuple[IOStream, IOStream]:
    one, another = socket.socketpair()
    return IOStream(one), IOStream(another)


def close_both(*streams: IOStream) -> None:
    for stream in streams:
        stream.close()
