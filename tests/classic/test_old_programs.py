"""What programs of 2016 pass and send, and nobody else."""

import pytest
from tornado.ioloop import IOLoop

from fastcore import ConnectionPool, Server, connect, read, rpc, write
from helpers.surface import HANDLERS, serving


async def test_a_loop_given_by_an_old_program_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="io_loop"):
        server = Server(HANDLERS, io_loop=IOLoop.current())
    with serving(server):
        where = {"ip": "127.0.0.1", "port": server.port}
        with pytest.warns(DeprecationWarning, match="io_loop"):
            connecting = connect(**where, io_loop=IOLoop.current())
        with pytest.warns(DeprecationWarning, match="io_loop"):
            remote = rpc(**where, io_loop=IOLoop.current())
        with pytest.warns(DeprecationWarning, match="io_loop"):
            pool = ConnectionPool(io_loop=IOLoop.current())
        stream = await connecting
        assert await remote.ping() == await pool(**where).ping() == b"pong"
        for end in (stream.close, remote.close_rpc, pool.close):
            end()


async def test_an_op_that_python_2_sent_as_bytes_is_found():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": b"ping"})
        assert await read(stream) == b"pong"
        stream.close()
