import ml_dtypes
import numpy as np
import pytest

from refquant.errors import NonFiniteError, QuantError, RangeError, ShapeError
from refquant.inputs import as_float32


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ">f4"])
def test_accepted_dtypes_become_contiguous_float32(dtype):
    x = np.arange(24, dtype=np.float32).reshape(4, 6).astype(dtype)[::2, ::-1]
    got = as_float32("test", x)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, [[5, 4, 3, 2, 1, 0], [17, 16, 15, 14, 13, 12]])


def test_what_is_float32_and_contiguous_is_not_copied():
    x = np.ones((2, 3), np.float32)
    assert as_float32("test", x) is x


def test_lists_are_arrays_and_float64_underflow_is_silent():
    np.testing.assert_array_equal(as_float32("test", [1.5, 1e-300]), np.array([1.5, 0], np.float32))


@pytest.mark.parametrize(
    "x, error, message",
    [
        (np.float32(1), ShapeError, r"x\.ndim = 0, expected at least one axis"),
        (1.5, ShapeError, r"x\.ndim = 0"),
        (np.zeros((0, 4), np.float32), ShapeError, r"x\.shape = \(0, 4\), expected at least one value"),
        ([], ShapeError, r"x\.shape = \(0,\)"),
        ([[1.0], [1.0, 2.0]], ShapeError, "expected a rectangular array"),
        (np.zeros(4, np.int32), QuantError, r"x\.dtype = int32, expected one of float16, bfloat16, float32, float64"),
        (np.zeros(4, bool), QuantError, r"x\.dtype = bool"),
        (np.zeros(4, np.complex64), QuantError, r"x\.dtype = complex64"),
        (np.array(["a", "b"]), QuantError, r"x\.dtype = <U1"),
        (np.array([None]), QuantError, r"x\.dtype = object"),
        ("int8", QuantError, r"x\.dtype = <U4"),
        (np.array([0, np.nan, np.inf], np.float16), NonFiniteError, r"x\.flat\[1\] = nan"),
        (np.array([0, -np.inf], np.float64), NonFiniteError, r"x\.flat\[1\] = -inf"),
        (np.array([np.inf], ml_dtypes.bfloat16), NonFiniteError, r"x\.flat\[0\] = inf"),
        (np.array([1, -1e39]), RangeError, r"x\.flat\[1\] = -1e\+39, expected a magnitude below 2\^128"),
    ],
)
def test_refusals(x, error, message):
    with pytest.raises(error, match=message):
        as_float32("test", x)
