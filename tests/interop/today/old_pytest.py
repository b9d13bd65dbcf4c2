"""A plugin that lets the tests of 2016 run on today's pytest."""

import types

import pytest

pytest.yield_fixture = pytest.fixture
pytest.config = types.SimpleNamespace(getoption=lambda name: True)
