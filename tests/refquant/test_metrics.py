import math

import numpy as np
import pytest

from refquant import metrics
from refquant.errors import NonFiniteError, ShapeError

X = np.array([[3.0, -4.0], [0.0, 12.0]], np.float32)


def test_values_on_a_pair_worked_by_hand():
    Y = X + np.array([[1, 0], [0, -2]], np.float32)
    assert metrics.mse(X, Y) == 5 / 4
    assert metrics.max_abs(X, Y) == 2
    assert metrics.sqnr_db(X, Y) == pytest.approx(10 * math.log10(169 / 5))
    assert metrics.cosine(X, Y) == pytest.approx((12 + 16 + 120) / (13 * math.sqrt(16 + 16 + 100)))


def test_one_bit_is_six_decibels():
    x = np.linspace(-1, 1, 4097)
    gains = [metrics.sqnr_db(x, np.round(x * 2**b) / 2**b) for b in (6, 7)]
    assert gains[1] - gains[0] == pytest.approx(6.02, abs=0.1)


def test_hessian_error_is_the_relative_error_of_the_output():
    rng = np.random.default_rng(5)
    W, E, A = rng.standard_normal((4, 6)), rng.standard_normal((4, 6)) / 10, rng.standard_normal((50, 6))
    ref = np.square(A @ E.T).sum() / np.square(A @ W.T).sum()
    assert metrics.hessian_error(W, W + E, 2 * A.T @ A) == pytest.approx(ref)


def test_edges_are_as_documented():
    zero = np.zeros_like(X)
    assert metrics.sqnr_db(X, X) == math.inf
    assert metrics.sqnr_db(zero, X) == -math.inf
    assert metrics.sqnr_db(zero, zero) == math.inf
    assert (metrics.cosine(zero, zero), metrics.cosine(X, zero), metrics.cosine(X, X), metrics.cosine(X, -X)) == (
        1,
        0,
        1,
        -1,
    )
    assert metrics.hessian_error(X, X, np.eye(2)) == 0
    assert metrics.hessian_error(zero, X, np.eye(2)) == math.inf


def test_float32_near_its_end_does_not_overflow():
    x = np.full(4, 3e38, np.float32)
    assert metrics.mse(x, -x) == pytest.approx(3.6e77, rel=1e-6)
    assert metrics.cosine(x, x) == 1


@pytest.mark.parametrize("metric", [metrics.mse, metrics.max_abs, metrics.sqnr_db, metrics.cosine])
def test_refusals(metric):
    with pytest.raises(ShapeError, match=r"shapes = \(2, 2\) and \(2,\)"):
        metric(X, X[0])
    with pytest.raises(ShapeError, match="not empty"):
        metric(X[:0], X[:0])
    with pytest.raises(NonFiniteError, match=r"y\.flat\[3\] = nan"):
        metric(X, np.where(X == 12, np.nan, X))


def test_hessian_error_refuses_a_matrix_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"H\.shape = \(3, 3\), expected \(out, in\), \(in, in\)"):
        metrics.hessian_error(X, X, np.eye(3))
