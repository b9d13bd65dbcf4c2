"""Arrays and scalars of numpy, as hypothesis makes them. Not for each Python there is a numpy."""

from typing import Any

import numpy
from hypothesis.extra import numpy as of_numpy

scalars = (
    of_numpy.boolean_dtypes()
    | of_numpy.integer_dtypes(endianness="?")
    | of_numpy.floating_dtypes(endianness="?")
    | of_numpy.complex_number_dtypes(endianness="?")
    | of_numpy.datetime64_dtypes(endianness="?")
    | of_numpy.timedelta64_dtypes(endianness="?")
    | of_numpy.byte_string_dtypes(min_len=1, max_len=8)
    | of_numpy.unicode_string_dtypes(min_len=1, max_len=8)
)
structures = of_numpy.array_dtypes(scalars, max_size=3, allow_subarrays=True).filter(
    lambda dtype: all(isinstance(part, str) for part, *_ in dtype.descr)  # no titles
)
dtypes = scalars | structures


def is_same(one: Any, other: Any) -> bool:
    """Whether two arrays, or scalars, are the same in type, shape, order and bytes."""
    if type(one) is not type(other):
        return False
    if not isinstance(one, numpy.ndarray | numpy.generic):
        return bool(one == other)
    one, other = numpy.asarray(one), numpy.asarray(other)
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()
