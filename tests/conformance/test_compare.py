"""Every comparison word is met where it should be, and can fail."""

import numpy as np
import pytest

from conformance.compare import METRICS, mismatch
from refquant.errors import QuantError

F = np.float32


def f32(*values):
    return np.array(values, F)


def test_bits_distinguishes_what_values_do_not():
    assert mismatch(f32(0.0, np.nan), {"bits": f32(0.0, np.nan)}) is None
    assert "0x80000000" in mismatch(f32(0.0), {"bits": f32(-0.0)})
    other_nan = np.array([0x7FC00001], np.uint32).view(F)
    assert mismatch(other_nan, {"bits": f32(np.nan)}) is not None
    assert mismatch(f32(1), {"bits": np.array([1.0])}) == "dtype = float32, expected float64"
    assert mismatch(f32(1, 2), {"bits": f32(1)}) == "shape = (2,), expected (1,)"


def test_bits_names_the_first_place_and_the_count():
    got, ref = np.array([[1, 2], [3, 4]], np.uint8), np.array([[1, 9], [3, 9]], np.uint8)
    assert mismatch(got, {"bits": ref}) == "2 of 4 differ, the first at [0, 1]: 0x02, expected 0x09"


def test_scalars_are_compared_and_shown():
    assert mismatch(F(1), {"bits": np.array(1, F)}) is None
    why = mismatch(F(2), {"bits": np.array(1, F)})
    assert why == "1 of 1 differ, the first: 2.0 (0x40000000), expected 1.0 (0x3f800000)"
    assert mismatch(F(1), {"ulp": np.array(1, F), "n": 0}) is None
    assert "expected -0.0" in mismatch(F(0), {"bits": np.array(-0.0, F)})


def test_exact_looks_at_values_only():
    ref = f32(0.0, np.nan, 1.5)
    assert mismatch(np.array([-0.0, np.nan, 1.5]), {"exact": ref}) is None
    assert mismatch(f32(0, 0, 1.5), {"exact": ref}) is not None
    assert mismatch(f32(0, np.nan, 1.25), {"exact": ref}) is not None
    assert mismatch(f32(0, np.nan), {"exact": ref}) == "shape = (2,), expected (3,)"


def test_either_is_met_by_any_choice_and_by_nothing_else():
    expect = {"either": [{"bits": f32(1)}, {"exact": f32(0)}]}
    assert mismatch(f32(1), expect) is None
    assert mismatch(f32(-0.0), expect) is None
    assert mismatch(f32(2), expect).startswith("none of the choices: 1 of 1 differ")


@pytest.mark.parametrize("dtype", [np.float16, F, np.float64])
def test_ulp_counts_neighbours_across_zero(dtype):
    tiny = np.nextafter(dtype(0), dtype(1))
    assert mismatch(np.array([tiny]), {"ulp": np.array([-tiny]), "n": 2}) is None
    assert mismatch(np.array([tiny]), {"ulp": np.array([-tiny]), "n": 1}) is not None
    one = np.ones(1, dtype)
    assert mismatch(np.nextafter(one, dtype(2)), {"ulp": one, "n": 1}) is None
    assert mismatch(np.nextafter(one, dtype(2)), {"ulp": one, "n": 0}) is not None


@pytest.mark.parametrize("got, ref", [(np.inf, np.finfo(F).max), (np.finfo(F).max, np.inf), (1, np.nan), (np.nan, 1)])
def test_ulp_has_no_distance_to_what_is_no_number(got, ref):
    assert mismatch(f32(got), {"ulp": f32(ref), "n": 1000}) is not None


def test_ulp_takes_infinity_for_infinity_and_any_nan_for_nan():
    assert mismatch(f32(np.inf, np.nan), {"ulp": f32(np.inf, -np.nan), "n": 0}) is None
    assert mismatch(np.ones(1), {"ulp": f32(1), "n": 3}) == "dtype = float64, expected float32"


@pytest.mark.parametrize("metric, at_most", [("max_abs", 1.0), ("mse", 0.5), ("relative", 0.2), ("unequal", 0.5)])
def test_bounds_hold_up_to_the_maximum_and_no_further(metric, at_most):
    expect = {"bound": metric, "ref": f32(3, 4), "max": at_most}
    assert METRICS.keys() == {"max_abs", "mse", "relative", "unequal"}
    assert mismatch(f32(3, 5), expect) is None
    assert mismatch(f32(3, 5), expect | {"max": at_most * 0.99}).startswith(metric)
    assert mismatch(f32(3, np.nan), expect | {"max": 1e9}) is not None
    assert mismatch(f32(3), expect) == "shape = (1,), expected (2,)"


def test_an_unknown_word_is_an_error_and_not_a_pass():
    with pytest.raises(QuantError, match="expected one of bits, exact"):
        mismatch(f32(1), {"about": f32(1)})
