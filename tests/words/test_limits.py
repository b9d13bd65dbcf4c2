"""``Limits``: what may be given, and what holds if nothing is."""

import inspect
import re

import pytest

from fastcore.limits import Limits


async def test_idle_connections_are_kept_unless_told_otherwise():
    assert Limits().idle_timeout is None


@pytest.mark.parametrize("name", list(inspect.signature(Limits).parameters))
@pytest.mark.parametrize("value", [-1, 0, "much"])
def test_a_limit_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=re.escape(name)):
        Limits(**{name: value})
