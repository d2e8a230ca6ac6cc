"""OBD, OBS, SparseGPT, Wanda and magnitude pruning: against naive spellings, and in the order the papers report."""

import numpy as np
import pytest

import refquant
from refquant import magnitude, metrics, obd, obs, sparsegpt, sparsity, wanda
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.hessian import Hessian


def layer(n: int = 64, out: int = 16, tokens: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, out, tokens])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    return rng.standard_normal((out, n)).astype(np.float32), (mixed * np.exp(rng.standard_normal(n))).astype(np.float32)


def test_obd_saliency_is_the_loss_of_removing_one_weight_under_a_diagonal_hessian():
    W, X = layer(8, 3)
    H = np.diag(np.diagonal(X.T @ X).astype(np.float64))
    for i, j in ((0, 0), (2, 5)):
        removed = W.astype(np.float64).copy()
        removed[i, j] = 0
        E = W - removed
        assert obd.saliency(W, H)[i, j] == pytest.approx(np.sum((E @ H) * E) / 2)
    np.testing.assert_array_equal(obd.saliency(W, H), obd.saliency(W, np.diagonal(H)))


def test_obs_removes_what_a_search_over_all_weights_would_and_solves_for_the_rest():
    W, X = layer(10, 2)
    H = X.astype(np.float64).T @ X
    got = obs.prune(W, H, sparsity=0.1, damp=0.0)
    for row in range(2):
        best = None
        for q in range(10):  # least squares over what is left
            left = [j for j in range(10) if j != q]
            delta = np.linalg.solve(H[np.ix_(left, left)], H[left, q] * W[row, q].astype(np.float64))
            w = W[row].astype(np.float64).copy()
            w[left] += delta
            w[q] = 0
            loss = (w - W[row]) @ H @ (w - W[row])
            best = min(best or (np.inf, None), (loss, w), key=lambda pair: pair[0])
        np.testing.assert_allclose(got[row], best[1], atol=1e-5)
    inverse = np.linalg.inv(H)
    assert obs.saliency(W[0], inverse).argmin() == np.flatnonzero(got[0] == 0)[0]


def test_better_informed_methods_lose_less():
    W, X = layer(96, 24, 1000)
    H = X.T @ X
    hessian = Hessian()
    hessian.update(X)
    pruned = {
        "obs": obs.prune(W, H),
        "sparsegpt": sparsegpt.prune(W, X),
        "wanda": wanda.prune(W, X),
        "obd": obd.prune(W, H),
        "magnitude": magnitude.prune(W),
    }
    error = {name: metrics.hessian_error(W, got, H) for name, got in pruned.items()}
    assert error["obs"] < error["sparsegpt"] < error["wanda"] < error["magnitude"]
    np.testing.assert_array_equal(pruned["wanda"] == 0, pruned["obd"] == 0)  # wanda's score is the root of obd's
    np.testing.assert_array_equal(wanda.prune(W, hessian) == 0, pruned["wanda"] == 0)
    for got in pruned.values():
        assert np.mean(got == 0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("prune", [
    lambda W, X, pattern: sparsegpt.prune(W, X, pattern=pattern),
    lambda W, X, pattern: wanda.prune(W, X, pattern=pattern),
    lambda W, X, pattern: magnitude.prune(W, pattern=pattern),
])  # fmt: skip
def test_a_pattern_leaves_at_most_m_minus_n_of_every_m(prune):
    W, X = layer()
    for n, m in ((2, 4), (1, 8)):
        zeros = (prune(W, X, (n, m)) == 0).reshape(16, -1, m).sum(axis=-1)
        assert (zeros == n).all()


def naive_sparsegpt(W, X, sparsity, block, pattern=None, levels=None):
    """sparsegpt.py of the authors, spelled again in float64; levels: scale, zero point and last code of quant.py."""
    W, n = W.astype(np.float64), W.shape[1]
    H = 2 * X.astype(np.float64).T @ X
    U = np.linalg.cholesky(np.linalg.inv(H + 0.01 * np.diagonal(H).mean() * np.eye(n))).T
    for first in range(0, n, block):
        scores = W[:, first : first + block] ** 2 / np.diagonal(U)[first : first + block] ** 2
        mask = scores <= np.sort(scores.ravel())[int(scores.size * sparsity)]
        for j in range(first, min(first + block, n)):
            if pattern and (j - first) % pattern[1] == 0:
                near = slice(j, j + pattern[1])
                order = np.argsort(W[:, near] ** 2 / np.diagonal(U)[near] ** 2, axis=1)[:, : pattern[0]]
                mask[:, j - first : j - first + pattern[1]] = False
                np.put_along_axis(mask[:, j - first :], order, True, axis=1)
            q = np.where(mask[:, j - first], 0, W[:, j])
            if levels:
                scale, zero, last = levels
                q = (np.clip(np.rint(q / scale) + zero, 0, last) - zero) * scale
            error = (W[:, j] - q) / U[j, j]
            W[:, j + 1 :] -= np.outer(error, U[j, j + 1 :])
            W[:, j] = q
    return W


@pytest.mark.parametrize("pattern", [None, (2, 4)])
@pytest.mark.parametrize("block", [16, 128])
def test_sparsegpt_is_the_authors_formulas(pattern, block):
    W, X = layer()
    got = sparsegpt.prune(W, X, sparsity=0.4, pattern=pattern, block=block, precision="exact")
    np.testing.assert_allclose(got, naive_sparsegpt(W, X, 0.4, block, pattern), atol=1e-5)


@pytest.mark.parametrize("pattern", [None, (2, 4)])
@pytest.mark.parametrize("bits, symmetric", [(4, True), (3, False)])
def test_sparsegpt_with_quantization_is_the_authors_formulas(bits, symmetric, pattern):
    W, X = layer()
    lo, hi, last = np.minimum(W.min(axis=1), 0), np.maximum(W.max(axis=1), 0), 2**bits - 1
    if symmetric:
        hi = np.maximum(-lo, hi)
        lo = -hi
    scale = (hi - lo) / np.float32(last)  # find_params of quant.py, perchannel
    zero = np.full_like(scale, (last + 1) / 2) if symmetric else np.rint(-lo / scale)
    ref = naive_sparsegpt(W, X, 0.4, 32, pattern, (scale.astype(np.float64), zero, last))
    scheme = f"uint{bits}-channel" + ("-sym" if symmetric else "")
    got = sparsegpt.quantize(W, scheme, X, sparsity=0.4, pattern=pattern, dialect="ist", block=32, precision="exact")
    np.testing.assert_array_equal(got.scale[:, 0], scale)
    np.testing.assert_allclose(got.dequantize(), ref, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int4-channel", "uint4-g32", "nf4-b64"])
@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_pruning_and_quantizing_together_beats_one_after_the_other(scheme, pattern):
    W, X = layer(128, 24, 1000)
    H = X.T @ X
    joint = refquant.quantize(W, scheme, method="sparsegpt", calibration=X, pattern=pattern).dequantize()
    apart = refquant.quantize(sparsegpt.prune(W, X, pattern=pattern), scheme).dequantize()
    assert metrics.hessian_error(W, joint, H) < metrics.hessian_error(W, apart, H)
    assert np.mean(joint == 0) >= 0.5


def test_zeros_must_be_levels_of_the_format():
    W, X = layer()
    with pytest.raises(SchemeError, match="an exact zero"):
        sparsegpt.quantize(W, "uint4-g32-zfloat-zbefore", X)


def test_masks_count_and_break_ties_by_index():
    scores = np.zeros((2, 8))
    assert sparsity.least_of_rows(scores, 0.5).tolist() == [[True] * 4 + [False] * 4] * 2
    assert sparsity.least_of_layer(scores, 0.25).sum(axis=1).tolist() == [4, 0]
    assert sparsity.least_of_pattern(scores, (1, 4)).tolist() == [[True, False, False, False] * 2] * 2


@pytest.mark.parametrize("call, error, message", [
    (lambda W, X: wanda.prune(W, X, 1.5), RangeError, "sparsity = 1.5"),
    (lambda W, X: wanda.prune(W, X[:, :3]), ShapeError, "3 columns, expected 64"),
    (lambda W, X: magnitude.prune(W, pattern=(4, 2)), RangeError, r"pattern = \(4, 2\)"),
    (lambda W, X: magnitude.prune(W, pattern=(2, 5)), ShapeError, "64, expected a positive multiple of 5"),
    (lambda W, X: magnitude.prune(W, scope="all"), RangeError, "scope = 'all'"),
    (lambda W, X: sparsegpt.prune(W, X, sparsity=-1), RangeError, "sparsity = -1"),
    (lambda W, X: sparsegpt.prune(W, X, order="activation"), RangeError, "order, block"),
    (lambda W, X: obd.saliency(W, np.ones(3)), ShapeError, r"H.shape = \(3,\)"),
])  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(*layer())
