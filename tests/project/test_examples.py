"""The programs of examples/, as a user starts them: real processes, real sockets."""

import importlib.util
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.support import Program

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def todays(name: str, port: int) -> Iterator[Program]:
    with Program(str(EXAMPLES / f"{name}.py"), str(port)) as program:
        yield program


@contextmanager
def classic(name: str, port: int) -> Iterator[Program]:
    """The text of a program of 2016 with another port in it; for the server, one that it tells."""
    text = (EXAMPLES / "classic" / f"{name}.py").read_text()
    text = text.replace("s.listen(8888)", f"s.listen({port}); print(s.port)")
    text = text.replace("8888", str(port)).replace("'interval': 1", "'interval': 0.01")
    # They start loops and leave sockets in ways that today's Python warns of.
    with Program("-W", "ignore", "-c", text) as program:
        yield program


SPELLINGS = pytest.mark.parametrize("spelling", [todays, classic])
Spelling = Callable[[str, int], Iterator[Program]]


@contextmanager
def serving_program(spelling: Spelling) -> Iterator[tuple[int, Program]]:
    with spelling("server", 0) as server:
        yield int(server.line().rpartition(":")[2]), server


@contextmanager
def serving(spelling: Spelling) -> Iterator[int]:
    with serving_program(spelling) as (port, server):
        yield port
        assert server.process.poll() is None, f"the server ended: {server.errors}"


@SPELLINGS
def test_the_client_by_hand_prints_the_sum_and_then_the_stream(spelling: Spelling):
    with serving(spelling) as port, spelling("client", port) as client:
        assert [client.line() for _ in range(4)] == ["3", "1", "2", "3"]


@SPELLINGS
def test_the_rpc_client_prints_the_sum(spelling: Spelling):
    with serving(spelling) as port, spelling("rpc_client", port) as client:
        assert client.rest() == "3"
        assert client.wait() == 0


@pytest.mark.parametrize(("server", "client"), [(todays, classic), (classic, todays)])
def test_the_two_spellings_understand_each_other(server: Spelling, client: Spelling):
    with serving(server) as port, client("rpc_client", port) as program:
        assert program.rest() == "3"


def test_a_server_outlives_a_client_that_leaves_in_the_middle_of_a_stream():
    with serving(todays) as port:
        with classic("client", port) as client:
            assert [client.line() for _ in range(2)] == ["3", "1"]
            client.send(signal.SIGKILL)
        with todays("rpc_client", port) as client:
            assert client.rest() == "3"


SAYS = {
    "everything_is_a_server": ["done by ['first', 'second']", "each did [5, 5]", "7 squared is 49"],
    "answers": ["1000000", "999999", "999998", "the countdown is over", "[0, 1, 4, 9, 16]"],
    "progress": [" 20%", " 40%", " 60%", " 80%", "100%", "669 primes", "that would take too long"],
    "retry": ["asked 6 times for 2 orders of 12"],
    "typed_client": ["pen 3.0", "ink 8.0"],
}


@pytest.mark.parametrize("name", SAYS)
def test_a_program_that_brings_its_server_says_this_and_nothing_besides(name: str):
    with Program(str(EXAMPLES / f"{name}.py")) as program:
        assert program.rest().splitlines() == SAYS[name]
        assert program.wait() == 0, program.errors
        assert program.errors == ""


def test_there_is_no_example_that_is_not_run():
    run_otherwise = {"server", "client", "rpc_client", "arrays", "script", "cluster"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*run_otherwise, *SAYS}


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGINT to send")
def test_server_and_client_end_quietly_on_ctrl_c():
    with serving_program(todays) as (port, server), todays("client", port) as client:
        assert [client.line() for _ in range(2)] == ["3", "1"]
        for program in (client, server):
            program.send(signal.SIGINT)
            assert program.wait() == 0
            assert program.errors == ""


def test_arrays_arrive_as_they_were_sent():
    pytest.importorskip("numpy")
    with Program(str(EXAMPLES / "arrays.py")) as program:
        assert program.rest() == "2024-02-29 (100, 1000) float64 [0.  0.5 1.  1.5]"
        assert program.wait() == 0, program.errors


def test_a_script_calls_without_a_loop():
    with serving(todays) as port, Program(str(EXAMPLES / "script.py"), str(port)) as program:
        assert program.rest() == "3"
        assert program.wait() == 0, program.errors
        assert program.errors == ""


@pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="distributed isn't installed")
def test_a_cluster_whose_workers_serve_goes_on_when_one_is_killed():
    # A worker that isn't back in 15 s is given up for good, and a busy machine takes longer to start one.
    environment = os.environ | {"DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "120s"}
    with Program(str(EXAMPLES / "cluster.py"), env=environment) as program:
        said = program.rest(200).splitlines()
        assert program.wait() == 0, program.errors
    outcome = [re.sub(r"\d+", "N", line).strip() for line in said]
    assert outcome[0] == "a server in each worker:"
    assert outcome[1] == outcome[2] == "N.N.N.N:N in tcp://N.N.N.N:N"
    assert outcome[4] == "N calls, by process: {N: N, N: N}"
    ended = sorted(line.partition(", which")[0] for line in outcome[6:10])
    lost = "WorkerLost: worker tcp://N.N.N.N:N was lost while 'nap' was under way there"
    assert ended == [lost, lost, "slept", "slept"]
    assert outcome[10] == "N calls go to who is left: {N: N}"
    assert outcome[11] == "and the worker that came in its place has a server too: [N, N]"
    assert said[13:14] == ["    1 + 2 = 3"]
    assert said[14].startswith("    8 calls to primes: 3245 each, ")
