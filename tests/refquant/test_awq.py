"""AWQ: the search against a scalar spelling, what folding leaves unchanged, and who may lose against whom."""

import numpy as np
import pytest

import refquant
from refquant import awq
from refquant.errors import NonFiniteError, QuantError, SchemeError, ShapeError
from refquant.hessian import Hessian
from refquant.schemes import parse

SCHEME = "uint4-g32@awq"


def layer(out: int = 24, n: int = 64, tokens: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and inputs of which some channels are ten times as large."""
    rng = np.random.default_rng([out, n, tokens, seed])
    X = rng.standard_normal((tokens, n)) * np.exp(rng.standard_normal(n))
    X[:, ::16] *= 10
    return rng.standard_normal((out, n)).astype(np.float32), X.astype(np.float32)


def output_error(W, got, X) -> float:
    return float(np.mean(np.square(X.astype(np.float64) @ (W - got).T)))


def naive_scales(W, X, ratio, duo, epsilon, added, low, high, group):
    """s of one point, a channel at a time in Python floats."""
    found = []
    for j in range(W.shape[1]):
        x = sum(abs(float(v)) for v in X[:, j]) / len(X)
        s = x**ratio
        if duo:
            first = j // group * group
            shares = [abs(float(r[j])) / (max(abs(r[first : first + group])) + epsilon) for r in W]
            s /= (sum(shares) / len(shares)) ** (1 - ratio) + added
        found.append(min(max(s, low), high))
    middle = (max(found) * min(found)) ** 0.5
    return np.array(found) / middle


@pytest.mark.parametrize("dialect", awq.DIALECTS)
def test_the_scales_are_those_of_the_formula_at_every_point(dialect):
    W, X = layer()
    search = awq.DIALECTS[dialect]
    x, w = awq.input_mean(X), awq.weight_mean([W], parse(SCHEME), search.epsilon)
    for ratio, duo in search.points:
        ref = naive_scales(W, X, ratio, duo, search.epsilon, search.added, search.low, search.high, 32)
        np.testing.assert_allclose(awq.channel_scale(x, w, ratio, duo, search), ref, rtol=2e-5)


def test_the_ratios_are_those_that_each_project_tries():
    ratios = {name: [r for r, _ in search.points] for name, search in awq.DIALECTS.items()}
    assert len(ratios["autoawq"]) == len(ratios["llm-awq"]) == len(ratios["llm-compressor"]) == 20
    assert max(ratios["autoawq"]) == max(ratios["llm-awq"]) == 0.95
    assert awq.DIALECTS["llm-compressor"].points[:2] == ((0.0, False), (0.0, True))
    assert ratios["llm-compressor"][-1] == ratios["modelopt"][-1] == ratios[""][-1] == 1
    assert len(ratios["modelopt"]) == 11


@pytest.mark.parametrize("dialect", awq.DIALECTS)
def test_the_winner_has_the_least_loss_and_its_loss_is_the_output_error(dialect):
    W, X = layer()
    found = awq.search_scale([W], X, SCHEME, dialect)
    points = awq.DIALECTS[dialect].points
    assert found.ratio == points[int(np.argmin(found.losses))][0]
    got = refquant.quantize(W * found.scale, SCHEME).dequantize() / found.scale
    assert output_error(W, got, X) == pytest.approx(min(found.losses), rel=1e-4)


@pytest.mark.parametrize("dialect", ["", "llm-awq", "llm-compressor"])
def test_a_search_that_tries_no_scaling_is_never_worse_than_rounding(dialect):
    for seed in range(3):
        W, X = layer(seed=seed)
        plain = output_error(W, refquant.quantize(W, SCHEME).dequantize(), X)
        got = awq.quantize(W, SCHEME, X, dialect=dialect, clip=False)
        assert output_error(W, got.dequantize(), X) <= plain * (1 + 1e-5)


def test_ratio_zero_with_duo_is_not_plain_rounding():
    W, X = layer()
    x, w = awq.input_mean(X), awq.weight_mean([W], parse(SCHEME), 1e-6)
    search = awq.DIALECTS["autoawq"]
    assert np.ptp(awq.channel_scale(x, w, 0.0, True, search)) > 0.01
    np.testing.assert_array_equal(awq.channel_scale(x, w, 0.0, False, search), 1)


def test_large_channels_gain_at_three_bits():
    W, X = layer(out=64, n=128)
    plain = output_error(W, refquant.quantize(W, "uint3-g64@awq").dequantize(), X)
    got = refquant.quantize(W, "uint3-g64@awq", method="awq@llm-awq", calibration=X)
    assert output_error(W, got.dequantize(), X) < 0.7 * plain


def test_the_clip_search_is_the_scalar_one():
    W, X = layer(out=6, n=64, tokens=50)
    W[0, 3], W[2, 40] = 9, -11  # groups with something to clip
    bound = awq.clip_bound(W, X, "int3-g32@awq")
    for row in range(6):
        for first in (0, 32):
            w, x = W[row, first : first + 32], X[:, first : first + 32].astype(np.float64)
            losses = []
            for step in range(10):
                limit = np.abs(w).max() * np.float32(1 - step / 20)
                q = refquant.quantize(np.clip(w, -limit, limit), "int3@awq").dequantize()
                losses.append((np.mean((x @ (w - q)) ** 2), limit))
            least, limit = min(losses, key=lambda pair: pair[0])
            got = bound[row, first]
            assert (bound[row, first : first + 32] == got).all()
            chosen = next(loss for loss, tried in losses if tried == got)
            assert chosen == pytest.approx(least, rel=1e-4), (row, first, limit, got)
    assert (bound < np.abs(W).reshape(6, 2, 32).max(axis=2).repeat(32, axis=1)).any()


def test_only_every_nth_token_decides_the_clipping():
    W, X = layer(out=4, n=32, tokens=1100)  # 1100 // 512 = 2
    thinned = X.copy()
    thinned[1::2] = 0
    np.testing.assert_array_equal(awq.clip_bound(W, X, "int4-g32"), awq.clip_bound(W, thinned, "int4-g32"))
    thinned[0::2] = X[0, 0] + np.arange(32)
    assert (awq.clip_bound(W, X, "int2-g32") != awq.clip_bound(W, thinned, "int2-g32")).any()


def test_folding_into_a_norm_or_a_matrix_leaves_the_function_unchanged():
    W, X = layer()
    rng = np.random.default_rng(1)
    s = awq.search_scale([W], X, SCHEME).scale
    gain, shift = rng.standard_normal((2, 64)).astype(np.float32)
    folded, moved = awq.fold_norm(gain, s, shift)
    np.testing.assert_allclose((X * folded + moved) @ (W * s).T, (X * gain + shift) @ W.T, rtol=1e-3, atol=1e-3)
    before, bias = rng.standard_normal((96, 16)).astype(np.float32), rng.standard_normal(96).astype(np.float32)
    Z = rng.standard_normal((10, 16)).astype(np.float32)
    rows, moved = awq.fold_rows(before, s, bias)
    ref = (Z @ before.T + bias)[:, 32:] @ W.T
    np.testing.assert_allclose((Z @ rows.T + moved)[:, 32:] @ (W * s).T, ref, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(rows[:32], before[:32])


def test_layers_that_share_an_input_share_the_scale_and_a_block_may_be_judged_whole():
    W, X = layer()
    V, _ = layer(seed=5)
    both = awq.search_scale([W, V], X, SCHEME)
    stacked = awq.search_scale([np.concatenate([W, V])], X, SCHEME)
    np.testing.assert_allclose(both.losses, stacked.losses, rtol=1e-5)

    def gated(x, matrices):
        return np.maximum(x @ matrices[0].T, 0) * (x @ matrices[1].T)

    block = awq.search_scale([W, V], X, SCHEME, output=gated)
    s = block.scale
    rounded = [refquant.quantize(M * s, SCHEME).dequantize() / s for M in (W, V)]
    loss = np.mean(np.square(gated(X, [W, V]).astype(np.float64) - gated(X, rounded)))
    assert min(block.losses) == pytest.approx(loss, rel=1e-4)


def test_a_column_that_was_never_fed_gets_a_finite_scale():
    W, X = layer()
    X[:, 7] = 0
    for dialect in awq.DIALECTS:
        got = awq.quantize(W, SCHEME, X, dialect=dialect)
        assert np.isfinite(got.extras["channel_scale"]).all()
        assert (got.extras["channel_scale"] > 0).all()
    assert np.isfinite(awq.quantize(W, SCHEME, np.zeros_like(X)).dequantize()).all()


def test_the_arguments_stay_what_they_were_and_batches_are_one_matrix():
    W, X = layer()
    before = W.copy(), X.copy()
    whole = awq.quantize(W, SCHEME, X)
    parts = awq.quantize(W, SCHEME, [X[:60], X[60:].reshape(2, 50, 64)])
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(W, before[0])
    np.testing.assert_array_equal(X, before[1])
    assert whole.nbytes == refquant.quantize(W, SCHEME).nbytes + 64 * 4


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"calibration": None}, QuantError, "calibration = None"),
        ({"calibration": []}, QuantError, "batches = 0"),
        ({"calibration": np.zeros((3, 63), np.float32)}, ShapeError, "expected \\(tokens, 64\\)"),
        ({"calibration": np.full((3, 64), np.nan, np.float32)}, NonFiniteError, "nan"),
        ({"dialect": "nobody"}, SchemeError, "expected one of"),
        ({"scheme": "int4-b128"}, SchemeError, "groups within a row"),
        ({"W": np.zeros(64, np.float32)}, ShapeError, "expected \\(out, in\\)"),
    ],
)
def test_refusals(change, error, message):
    W, X = layer()
    given = {"W": W, "scheme": SCHEME, "calibration": X} | change
    with pytest.raises(error, match=message):
        awq.quantize(**given)


def test_a_hessian_is_no_calibration_for_means():
    W, X = layer()
    H = Hessian()
    H.update(X)
    with pytest.raises(QuantError, match="a Hessian"):
        awq.quantize(W, SCHEME, H)
