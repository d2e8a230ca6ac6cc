from fractions import Fraction

import ml_dtypes
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeded

from refquant import rounding
from refquant.errors import RangeError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
TABLE = {  # of -2.5 -1.5 -0.5 0.5 1.5 2.5 0.7 -0.7, as the module's docstring prints it
    "half_even": [-2, -2, 0, 0, 2, 2, 1, -1],
    "half_away": [-3, -2, -1, 1, 2, 3, 1, -1],
    "half_to_zero": [-2, -1, 0, 0, 1, 2, 1, -1],
    "half_up": [-2, -1, 0, 1, 2, 3, 1, -1],
    "half_down": [-3, -2, -1, 0, 1, 2, 1, -1],
    "toward_zero": [-2, -1, 0, 0, 1, 2, 0, 0],
}


def test_every_mode_is_in_the_table():
    assert rounding.ROUNDINGS.keys() == TABLE.keys()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", TABLE)
def test_modes_round_as_the_docstring_prints(mode, dtype):
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.7, -0.7], dtype)
    before = x.copy()
    got = rounding.ROUNDINGS[mode](x)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.float64), TABLE[mode])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("mode", TABLE)
@seeded
@given(x=st.floats(-(2.0**24), 2.0**24, width=32), half=st.integers(-40, 40))
def test_modes_equal_exact_rounding_of_fractions(mode, x, half):
    for value in (x, half / 2, np.nextafter(np.float32(half / 2), np.float32(np.inf)), np.nextafter(np.float32(x), -x)):
        got = rounding.ROUNDINGS[mode](np.array([value], np.float32))
        assert int(got[0]) == naive.round_integer(Fraction(float(np.float32(value))), mode)


@pytest.mark.parametrize("mode", TABLE)
def test_numbers_that_floor_of_x_plus_half_gets_wrong_are_right(mode):
    x = np.array([0.49999997, -0.49999997, 8388609, -8388609, 16777215], np.float32)
    ref = [0, 0, 8388609, -8388609, 16777215]
    np.testing.assert_array_equal(rounding.ROUNDINGS[mode](x), ref)


@pytest.mark.parametrize("mode", TABLE)
def test_result_can_replace_the_argument(mode):
    x = np.array([-1.5, 0.5, 2.5, 3.7], np.float32)
    ref = rounding.ROUNDINGS[mode](x)
    got = rounding.ROUNDINGS[mode](x, out=x)
    assert got is x
    np.testing.assert_array_equal(x, ref)


@pytest.mark.parametrize("mode", TABLE)
def test_nan_and_infinities_pass_without_a_warning(mode):
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(rounding.ROUNDINGS[mode](x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_rounding_has_the_right_expectation_and_neighbours(dtype):
    x = np.repeat(np.array([-1.75, -0.25, 0.125, 2.5, 7], dtype), 20000).reshape(5, -1)
    got = rounding.stochastic(x, np.random.default_rng([5, 20000])).astype(np.float64)
    assert set(np.unique(got[3])) == {2, 3}
    assert (got[4] == 7).all()
    np.testing.assert_allclose(got.mean(axis=1), [-1.75, -0.25, 0.125, 2.5, 7], atol=0.02)  # 5 sigma = 0.018


def test_stochastic_rounding_repeats_with_the_seed_and_differs_without():
    x = np.full(1000, 0.5, np.float32)
    first, again, other = (rounding.stochastic(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("name, dtype", [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_narrowing_equals_storing_and_reading_back(name, dtype):
    rng = np.random.default_rng([16, 65536])
    x = rng.integers(0, 2**32, 65536, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        ref = x.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(rounding.narrow(x, name), ref)


@pytest.mark.parametrize("dropped", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_narrowing_to_bfloat16_breaks_every_tie_to_even(dropped):
    x = ((np.arange(2**16, dtype=np.uint32) << 16) | dropped).view(np.float32)
    with np.errstate(all="ignore"):
        ref = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(rounding.narrow(x, "bfloat16"), ref)


@seeded
@given(x=st.floats(-65000, 65000, width=32))
def test_narrowing_equals_exact_rounding(x):
    for name in ("float16", "bfloat16", "float32"):
        got = rounding.narrow(np.array([x], np.float32), name)
        assert Fraction(float(got[0])) == naive.to_float(Fraction(x), naive.FORMATS[name])


def test_narrowing_overflows_to_infinity_and_refuses_other_dtypes():
    x = np.array([65520, -1e6], np.float32)
    np.testing.assert_array_equal(rounding.narrow(x, "float16"), [np.inf, -np.inf])
    with pytest.raises(RangeError, match="dtype = 'float8', expected float32"):
        rounding.narrow(x, "float8")
