"""The programs of load, soak and fuzz, in small: all is well at their end."""

from pathlib import Path

import pytest

from helpers.support import Program

TESTS = Path(__file__).parents[1]


def outcome(script: str, *arguments: str) -> list[str]:
    with Program(str(TESTS / script), *arguments) as program:
        code = program.wait(100)
        lines = program.rest().splitlines()
        assert code == 0, "\n".join([*lines, program.errors])
    return lines


@pytest.mark.timeout(150)
def test_many_connections_and_calls_some_given_up_get_right_answers_and_leave_nothing():
    lines = outcome("load/load.py", "--connections", "40", "--calls", "50", "--largest", "100000")
    assert lines[0].startswith("2,000 calls over 40 connections")
    assert "WRONG" not in lines[0]
    assert lines[-1] == "all is well"


@pytest.mark.timeout(150)
def test_messages_and_visits_for_a_while_leave_memory_and_descriptors_flat():
    lines = outcome("load/soak.py", "--seconds", "8", "--messages", "20000")
    assert lines[-1] == "flat"


@pytest.mark.timeout(150)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_under_a_hail_of_inputs_serves_its_healthy_clients(seed):
    lines = outcome("fuzz/server.py", "--inputs", "10000", "--seed", str(seed))
    assert lines[0].startswith("10,000 inputs")
    assert lines[-1] == "all is well"
