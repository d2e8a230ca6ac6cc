"""Accumulating Hessians and factoring them: against NumPy's own algebra, and for bytes that do not depend on BLAS."""

import numpy as np
import pytest

from refquant import factor
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.hessian import RULES, Hessian, damped, hessian_of, revive_dead


def definite(n: int, seed: int = 0) -> np.ndarray:
    A = np.random.default_rng([n, seed]).standard_normal((n, 2 * n))
    return A @ A.T / n + 0.01 * np.eye(n)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 200])
def test_factors_multiply_back(n, exact):
    H = definite(n)
    R, U = factor.factors(H, exact)
    np.testing.assert_allclose(R @ R.T, H, atol=1e-12 * n)
    np.testing.assert_allclose(U.T @ U @ H, np.eye(n), atol=1e-9)
    assert not np.tril(R, -1).any() and not np.tril(U, -1).any() and (np.diagonal(U) > 0).all()


def test_the_inverse_factor_is_the_cholesky_factor_of_the_inverse():
    H = definite(150)
    ref = np.linalg.cholesky(np.linalg.inv(H)).T
    np.testing.assert_allclose(factor.inverse_factor(H), ref, atol=1e-10)
    np.testing.assert_allclose(factor.inverse_factor(H.astype(np.float32)), ref, atol=2e-4)


def test_exact_factors_are_what_scalar_loops_give_bit_for_bit():
    H, n = definite(12), 12
    R = np.zeros((n, n))
    for j in reversed(range(n)):
        for i in reversed(range(j + 1)):
            value = H[i, j]
            for k in reversed(range(j + 1, n)):
                value = value - R[i, k] * R[j, k]
            R[i, j] = np.sqrt(value) if i == j else value / R[j, j]
    got, U = factor.factors(H, exact=True)
    assert got.tobytes() == R.tobytes()
    ref = np.zeros((n, n))
    for j in range(n):
        for i in reversed(range(j + 1)):
            value = float(i == j)
            for k in reversed(range(i + 1, j + 1)):
                value = value - R[i, k] * ref[k, j]
            ref[i, j] = value / R[i, i]
    assert U.tobytes() == ref.tobytes()


@pytest.mark.parametrize("exact", [False, True])
def test_a_matrix_that_is_not_definite_is_refused(exact):
    H = definite(100)
    H[5, 5] = -1
    with pytest.raises(RangeError, match="not positive definite"):
        factor.factors(H, exact)
    with pytest.raises(ShapeError, match=r"\(3, 4\)"):
        factor.factors(np.ones((3, 4)), exact)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("exact", [False, True])
def test_every_rule_is_two_over_n_times_the_gram_matrix(rule, exact):
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal((k, 50, 6)).astype(np.float32) for k in (1, 3, 2)]
    hessian = Hessian(rule, exact)
    for batch in batches:
        hessian.update(batch)
    X = np.concatenate([b.reshape(-1, 6) for b in batches]).astype(np.float64)
    n = 300 if rule == "sum" else 6
    assert hessian.count == n
    np.testing.assert_allclose(hessian.matrix, 2 / n * X.T @ X, rtol=1e-5, atol=1e-4)
    halves = [Hessian(rule, exact), Hessian(rule, exact)]
    halves[0].update(batches[0])
    halves[1].update(batches[1])
    halves[1].update(batches[2])
    halves[0].merge(halves[1])
    halves[0].merge(Hessian(rule, exact))
    np.testing.assert_allclose(halves[0].matrix, hessian.matrix, rtol=1e-5, atol=1e-4)


def test_the_exact_sum_does_not_depend_on_batches():
    X = np.random.default_rng(2).standard_normal((40, 9)).astype(np.float32)
    ref = hessian_of("test", X, "sum", True, 9)
    order = np.zeros((9, 9))
    for x in X.astype(np.float64):
        order = order + x[:, None] * x
    assert ref.tobytes() == (order * (2 / 40)).tobytes()


def test_the_damping_is_a_share_of_the_mean_of_the_diagonal():
    H = definite(8)
    H[2, :] = H[:, 2] = 0
    revived, dead = revive_dead(H)
    assert dead.tolist() == [i == 2 for i in range(8)] and revived[2, 2] == 1 and H[2, 2] == 0
    np.testing.assert_allclose(damped(revived, 0.1), revived + 0.1 * np.diagonal(revived).mean() * np.eye(8))


def test_refusals():
    hessian = Hessian()
    with pytest.raises(QuantError, match="batches = 0"):
        _ = hessian.matrix
    hessian.update(np.ones((2, 3), np.float32))
    with pytest.raises(ShapeError, match=r"X.shape = \(2, 4\), expected \(tokens, 3\)"):
        hessian.update(np.ones((2, 4), np.float32))
    with pytest.raises(QuantError, match="settings = running"):
        hessian.merge(Hessian("running"))
    with pytest.raises(RangeError, match="rule = 'mean'"):
        Hessian("mean")
