"""The scale searches against their scalar spelling, and the rules that their docstrings state."""

import naive_scale_search as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refquant.gguf.scale_search import (
    Grid,
    columns,
    first_extreme,
    nearest_int,
    positive_scale,
    scale_and_minimum,
    signed_descent,
    signed_scale,
    total,
)

GROUPS = 3
MODEST = st.one_of(
    st.integers(-8, 8).map(float), st.floats(2.0**-10, 1024, width=32), st.floats(-1024, -(2.0**-10), width=32)
)
IMPORTANCE = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(2.0**-10, 64, width=32))
GRIDS = [Grid(-1, 0.1, 20), Grid(-0.5, 0.1, 15), Grid(-0.9, 0.05, 36)]


def groups(elements, n=16):
    return arrays(np.float32, (n, GROUPS), elements=elements)


def column(*values):
    """One group."""
    return np.array(values, np.float32)[:, None]


def assert_same(got, ref):
    """(scale, ..., codes) of all groups against those of the scalar search, group by group."""
    for k, group in enumerate(ref):
        *numbers, codes = group
        for mine, theirs in zip(got, numbers):
            assert mine.dtype == np.float32
            assert mine[k] == np.float32(theirs)
        assert got[-1].dtype == np.uint8
        assert got[-1][:, k].tolist() == codes


@pytest.mark.parametrize("top", [4, 8, 32])
@settings(max_examples=15, deadline=None)
@given(x=groups(MODEST), w=groups(IMPORTANCE))
def test_signed_scale(top, x, w):
    assert_same(signed_scale(x, w, top), [naive.signed_scale(a, v, top) for a, v in zip(x.T.tolist(), w.T.tolist())])


@settings(max_examples=20, deadline=None)
@given(x=groups(MODEST))
def test_signed_descent(x):
    assert_same(signed_descent(x, 4), [naive.signed_descent(a, 4) for a in x.T.tolist()])


@pytest.mark.parametrize("top", [15, 63])
@settings(max_examples=15, deadline=None)
@given(x=groups(MODEST), w=groups(IMPORTANCE))
def test_positive_scale(top, x, w):
    x = np.abs(x)
    assert_same(
        positive_scale(x, w, top), [naive.positive_scale(a, v, top) for a, v in zip(x.T.tolist(), w.T.tolist())]
    )


@pytest.mark.parametrize(
    "top, grid, absolute",
    [
        (3, GRIDS[1], True),
        (15, GRIDS[0], False),
        (31, GRIDS[1], False),
        *((top, GRIDS[2], False) for top in (3, 15, 31)),
    ],
    ids=str,
)
@settings(max_examples=10, deadline=None)
@given(x=groups(MODEST), w=groups(IMPORTANCE))
def test_scale_and_minimum(top, grid, absolute, x, w):
    ref = [naive.scale_and_minimum(a, v, top, *grid, absolute) for a, v in zip(x.T.tolist(), w.T.tolist())]
    assert_same(scale_and_minimum(x, w, top, grid, absolute), ref)


def test_nearest_int_rounds_half_to_even():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 4194302.5, -4194303.5, -0.0], np.float32)
    got = nearest_int(x)
    assert got.dtype == np.int32
    assert got.tolist() == [0, 2, 2, 0, -2, 0, 4194302, -4194304, 0]


def test_nearest_int_of_what_is_too_large_is_what_the_low_bits_of_the_sum_say():
    with np.errstate(all="ignore"):
        got = nearest_int(np.array([np.inf, -np.inf, np.nan, 2.0**22, 2.0**23, 1e30], np.float32))
    # 1e30 = 0x7149f2ca: the low 23 bits are 0x49f2ca
    assert got.tolist() == [-(2**22), -(2**22), 0, -(2**22), -(2**21), 0x49F2CA - 2**22]


def test_a_total_runs_down_the_column():
    x = np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32)
    assert total(x).tolist() == [naive.total(column) for column in x.T.tolist()]
    assert total(column(1e8, 1, -1e8))[0] == 0
    assert total(column(1, -1e8), np.float32([1e8]))[0] == 0


def test_columns_are_runs_of_consecutive_weights():
    assert columns(np.arange(12).reshape(2, 6), 3).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_the_first_of_equal_extremes_counts_and_nan_does_not():
    x = np.array([[1, -1, np.nan, -0.0], [-1, 1, -2, 0.0]], np.float32)
    got = first_extreme(x)
    assert got.tolist() == [1, -1, -2, 0]
    assert not np.signbit(got[3])


def test_the_extreme_gets_the_code_that_only_one_sign_has():
    scale, codes = signed_scale(column(-8, 7, 0), column(1, 1, 1), 8)
    assert (scale[0], codes[:, 0].tolist()) == (1, [0, 15, 8])
    scale, codes = signed_scale(column(8, -7, 0), column(1, 1, 1), 8)
    assert (scale[0], codes[:, 0].tolist()) == (-1, [0, 15, 8])


@pytest.mark.parametrize("search", [lambda x: signed_scale(x, np.ones_like(x), 4), lambda x: signed_descent(x, 4)])
def test_below_1e_15_scale_and_codes_are_0(search):
    scale, codes = search(np.array([[9.9e-16, 1.1e-15, 0], [-9e-16, 0, 0]], np.float32))
    assert (scale != 0).tolist() == [False, True, False]
    assert codes.T.tolist() == [[0, 0], [0, 4], [0, 0]]


def test_without_importance_signed_scale_gives_0_and_the_codes_of_the_first_trial():
    scale, codes = signed_scale(column(-8, 3, 1), column(0, 0, 0), 8)
    assert (scale[0], codes[:, 0].tolist()) == (0, [0, 11, 9])


@pytest.mark.parametrize("value, minimum", [(2.5, 0), (-2.5, -2.5), (0, 0)])
def test_equal_weights_are_the_minimum_or_a_scale_from_0(value, minimum):
    scale, lo, codes = scale_and_minimum(
        np.full((32, 1), value, np.float32), np.ones((32, 1), np.float32), 15, GRIDS[0]
    )
    assert lo[0] == minimum
    np.testing.assert_allclose(scale[0] * codes + lo[0], value, rtol=1e-6)
    assert (scale[0] == 0) == (value <= 0)


def test_of_minus_zero_and_zero_the_first_is_the_minimum():
    x = np.array([[-0.0, 0.0], [0.0, -0.0], [1, 1]], np.float32)
    _, minimum, _ = scale_and_minimum(x, np.zeros_like(x), 15, GRIDS[0])
    assert np.signbit(minimum).tolist() == [True, False]


@pytest.mark.parametrize("top", [3, 15, 31])
def test_the_searches_beat_plain_rounding_by_their_own_measure(top):
    rng = np.random.default_rng(top)
    x, w = rng.standard_normal((32, 500), dtype=np.float32), rng.random((32, 500), dtype=np.float32)
    scale, lo, codes = scale_and_minimum(x, w, top, GRIDS[2])
    step = np.ptp(x, axis=0) / top
    plain = np.rint((x - x.min(axis=0)) / step) * step + x.min(axis=0)
    error, plain_error = ((w * (fit - x) ** 2).sum(axis=0) for fit in (scale * codes + lo, plain))
    assert (error <= plain_error * 1.0001).all()
    assert error.mean() < 0.9 * plain_error.mean()


def test_infinities_and_nan_are_carried_through_without_a_warning():
    x = np.array([[np.inf, np.nan, 3e38], [1, 1, -3e38]], np.float32)
    with np.errstate(all="raise"):
        for scale, *_ in (signed_scale(x, x, 4), signed_descent(x, 4), positive_scale(x, x, 4)):
            assert scale.shape == (3,)
        scale_and_minimum(x, x, 3, GRIDS[0])


@pytest.mark.parametrize(
    "top, x, w",
    [
        (15, (88, 67, 84, 16, 76, 7, 21, 32), (1, 7, 2, 0, 3, 6, 5, 7)),
        (63, (66, 81, 11, 25, 20, 74, 75, 48), (0, 1, 8, 7, 4, 1, 7, 3)),
    ],
)
def test_the_fifth_sweep_of_positive_scale_still_moves_a_code(top, x, w):
    assert_same(positive_scale(column(*x), column(*w), top), [naive.positive_scale(list(x), list(w), top)])
