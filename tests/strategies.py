"""Rows of weights that break quantizers, as hypothesis strategies, and settings that repeat the same examples."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

seeded = settings(max_examples=60, deadline=None, derandomize=True)  # the same examples in every run
TINY = float(np.finfo(np.float32).tiny)
HUGE = float(np.finfo(np.float32).max)

_ordinary = st.floats(-4, 4, width=32)
_finite = st.floats(-HUGE, HUGE, width=32)


def _row(values: st.SearchStrategy, n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(values, min_size=n, max_size=n).map(lambda row: np.array(row, np.float32))


@st.composite
def _ties(draw, n):
    """Multiples of half a power of two: quotients end in exactly .5 where the scale is that power."""
    step = 2.0 ** draw(st.integers(-20, 20))
    row = draw(st.lists(st.integers(-15, 15), min_size=n, max_size=n))
    row[draw(st.integers(0, n - 1))] = draw(st.sampled_from([15, -15, 16, -16, 14, -14]))
    return (np.array(row, np.float32) * np.float32(step / 2)).astype(np.float32)


@st.composite
def _outlier(draw, n):
    """One weight a thousand to a million times the others."""
    row = draw(_row(_ordinary, n))
    row[draw(st.integers(0, n - 1))] = draw(st.sampled_from([-1e6, -1e3, 1e3, 1e6]))
    return row


@st.composite
def _power_of_two_peak(draw, n):
    """The largest magnitude is a power of two, reached from both sides."""
    peak = 2.0 ** draw(st.integers(-30, 30))
    row = draw(_row(st.floats(-1, 1, width=32), n)) * np.float32(peak)
    at = draw(st.permutations(range(n)))
    row[at[0]], row[at[1]] = peak, -peak
    return row


def rows(n: int) -> st.SearchStrategy[np.ndarray]:
    """float32 (n,): zeros, a constant, ties, one outlier, subnormals, near the largest float32, and ordinary rows."""
    return st.one_of(
        st.just(np.zeros(n, np.float32)),
        _finite.map(lambda v: np.full(n, v, np.float32)),
        _row(_ordinary, n),
        _ties(n),
        _outlier(n),
        _power_of_two_peak(n),
        _row(st.floats(-TINY, TINY, width=32), n),
        _row(_finite, n),
        _row(st.sampled_from([HUGE, -HUGE, HUGE / 2, 0.0]), n),
        _row(st.floats(0, 4, width=32), n),
    )
