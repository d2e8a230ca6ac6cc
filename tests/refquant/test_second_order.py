"""OBQ, GPTQ, LDLQ and GPTAQ are one idea in four spellings: they are held against each other and a naive one."""

import numpy as np
import pytest

import refquant
from refquant import factor, gptaq, gptq, ldlq, metrics, obq, obs
from refquant.column_grids import ColumnGrids
from refquant.column_order import column_order
from refquant.errors import NonFiniteError, QuantError, RangeError, SchemeError, ShapeError, UnsupportedError
from refquant.grid import Grid
from refquant.hessian import Hessian, damped, revive_dead
from refquant.schemes import parse

SCHEMES = ["int4-channel", "int4-g32-asym", "uint3-g32-sym", "nf4-b32", "int4", "uint2-g64-zfloat-zbefore"]


def layer(n: int = 64, out: int = 12, tokens: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and inputs whose columns are correlated and of unequal size."""
    rng = np.random.default_rng([n, out, tokens, seed])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    X = mixed * np.exp(0.5 * rng.standard_normal(n))
    return rng.standard_normal((out, n)).astype(np.float32), X.astype(np.float32)


def naive_gptq(W, X, maxq, group, damp=0.01, stale_block=None, act_order=False, symmetric=False):
    """IST's gptq.py, spelled again in float64 without lazy blocks; stale_block holds back updates for group scales."""
    W, n = W.astype(np.float64), W.shape[1]
    H = 2 * X.astype(np.float64).T @ X.astype(np.float64)
    order = np.argsort(-np.diagonal(H), kind="stable") if act_order else np.arange(n)
    W, H = W[:, order], H[order][:, order]
    U = np.linalg.cholesky(np.linalg.inv(H + damp * np.diagonal(H).mean() * np.eye(n))).T
    seen, codes, scales = W.copy(), np.empty(W.shape, int), []
    for j in range(n):
        if stale_block is None or j % stale_block == 0:
            seen = W.copy()
        if j % group == 0:
            part = seen[:, j : j + group]
            lo, hi = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            if symmetric:
                hi = np.maximum(-lo, hi)
                lo = np.where(lo < 0, -hi, lo)
            scale = np.float64(np.float32((hi - lo) / maxq))
            zero = np.full(len(W), (maxq + 1) / 2) if symmetric else np.rint(-lo / scale)
            scales.append(scale)
        codes[:, j] = np.clip(np.rint(W[:, j] / scale) + zero, 0, maxq)
        error = (W[:, j] - (codes[:, j] - zero) * scale) / U[j, j]
        W[:, j + 1 :] -= np.outer(error, U[j, j + 1 :])
    back = np.argsort(order)
    return codes[:, back], np.stack(scales, axis=1)


@pytest.mark.parametrize("group, options", [
    (64, {}), (16, {}), (16, {"act_order": True}), (16, {"stale_block": 32}), (64, {"symmetric": True}),
])  # fmt: skip
def test_gptq_gives_the_codes_of_the_authors_formulas(group, options):
    W, X = layer()
    ref, scales = naive_gptq(W, X, 15, group, **options)
    named = {
        "order": "activation" if options.get("act_order") else "natural",
        "statistics": "stale" if "stale_block" in options else "fresh",
        "block": options.get("stale_block", 128),
        "ranges": "ist",
    }
    scheme = f"uint4-g{group}" + ("-sym" if options.get("symmetric") else "")
    got = gptq.quantize(W, scheme, X, precision="exact", **named)
    np.testing.assert_array_equal(got.codes, ref)
    np.testing.assert_allclose(got.scale, scales, rtol=2e-7)


@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gptq_is_obq_in_one_order_to_1e_10(scheme, order):
    W, X = layer(64, 6)
    H = Hessian(exact=True)
    H.update(X)
    H = H.matrix
    order = column_order(order, np.diagonal(H), 32)
    raised = damped(H, 0.01)
    grids = ColumnGrids(W, parse(scheme), order, static=True, dtype=np.float64)
    columns = np.ascontiguousarray(W.T[order].astype(np.float64))
    codes, _ = gptq.sweep(columns, factor.inverse_factor(raised[order][:, order], True), grids, [0, 20, 64], True)
    natural = ColumnGrids(W, parse(scheme), np.arange(64), static=True, dtype=np.float64).whole()
    H_inverse = obs.inverse(H, 0.01)
    for row, w in enumerate(W.astype(np.float64)):
        grid = Grid(natural.rule, natural.scale[:, row], natural.zero_point[:, row])
        ref_codes, ref_rounded = obq.quantize_row(w, grid, H_inverse, order)
        np.testing.assert_array_equal(codes[:, row], ref_codes[order])
        np.testing.assert_allclose(columns[:, row], ref_rounded[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ldlq_is_gptq_with_static_groups(scheme):
    W, X = layer(96 if scheme != "uint2-g64-zfloat-zbefore" else 128, 16)
    ref = gptq.quantize(W, scheme, X, static_groups=True, precision="exact")
    got = ldlq.quantize(W, scheme, X, precision="exact")
    np.testing.assert_array_equal(got.codes, ref.codes)
    np.testing.assert_array_equal(got.scale, ref.scale)


def test_the_loss_of_a_sweep_is_the_weighted_error():
    W, X = layer(64, 8)
    H = damped(X.astype(np.float64).T @ X, 0.01)
    grids = ColumnGrids(W, parse("int3-channel"), np.arange(64), static=True, dtype=np.float64)
    codes, loss = gptq.sweep(W.T.astype(np.float64), factor.inverse_factor(H), grids, [0, 64], False)
    E = W.astype(np.float64) - grids.tensor(codes).dequantize()
    assert loss == pytest.approx(np.sum((E @ H) * E) / 2, rel=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
def test_every_variant_beats_rounding_and_decodes_what_it_measured(scheme, order):
    W, X = layer(128, 24, 600)
    H = X.T @ X
    nearest = metrics.hessian_error(W, refquant.quantize(W, scheme).dequantize(), H)
    for options in ({}, {"static_groups": True}, {"statistics": "stale"}):
        q = refquant.quantize(W, scheme, method="gptq", calibration=X, order=order, **options)
        assert q.codes.shape == W.shape and str(q.scheme) == str(parse(scheme))
        assert metrics.hessian_error(W, q.dequantize(), H) < 0.9 * nearest


def test_g_idx_is_stored_exactly_where_groups_are_scattered():
    W, X = layer(128)
    cases = {("activation", False): True, ("activation", True): False, ("group-aware", False): False}
    for (order, static), stored in cases.items():
        q = gptq.quantize(W, "int4-g32", X, order=order, static_groups=static)
        assert ("g_idx" in q.extras) == stored
    whole = gptq.quantize(W, "int4-channel", X, order="activation")
    assert "g_idx" not in whole.extras  # one group: nothing to scatter
    g_idx = gptq.quantize(W, "int4-g32", X, order="activation").extras["g_idx"]
    assert g_idx.dtype == np.int32 and (np.bincount(g_idx) == 32).all()


def test_exact_mode_gives_the_same_bytes_for_every_block_size():
    W, X = layer(96, 10)
    for scheme, options in (("int3-channel", {}), ("int4-g32", {"static_groups": True}), ("int4-g32", {})):
        results = [
            gptq.quantize(W, scheme, X, precision="exact", block=block, order="activation", **options)
            for block in (1, 7, 32, 96, 500)
        ]
        for got in results[1:]:
            assert got.codes.tobytes() == results[0].codes.tobytes()
            assert got.scale.tobytes() == results[0].scale.tobytes()


def test_fast_mode_stays_within_its_stated_tolerance_of_exact_mode():
    W, X = layer(256, 64, 1000)
    H = X.T @ X
    for scheme in ("int4-channel", "int4-g64", "int3-g32-asym"):
        exact, fast = (gptq.quantize(W, scheme, X, precision=p) for p in ("exact", "fast"))
        assert np.mean(exact.codes != fast.codes) < 1e-3
        a, b = (metrics.hessian_error(W, q.dequantize(), H) for q in (exact, fast))
        assert b == pytest.approx(a, rel=1e-3)


def test_stale_and_fresh_statistics_differ_where_a_group_begins_inside_a_block():
    W, X = layer(256, 16)
    stale, fresh = (gptq.quantize(W, "int4-g32", X, statistics=s) for s in ("stale", "fresh"))
    assert np.mean(stale.scale != fresh.scale) > 0.5
    np.testing.assert_array_equal(stale.scale[:, 0], fresh.scale[:, 0])
    stale, fresh = (gptq.quantize(W, "int4-g128", X, statistics=s) for s in ("stale", "fresh"))
    np.testing.assert_array_equal(stale.codes, fresh.codes)


def test_the_ist_range_of_a_group_without_negative_weights_clips_its_upper_half():
    W, X = layer(32, 4)
    W = np.abs(W)
    ist = gptq.quantize(W, "uint4-channel-sym", X, ranges="ist")
    np.testing.assert_array_equal(ist.scale[:, 0], W.max(axis=1) / np.float32(15))
    np.testing.assert_allclose(ist.dequantize().max(axis=1), W.max(axis=1) * 7 / 15, rtol=1e-6)
    W[0] = 0
    assert gptq.quantize(W, "uint4-channel-sym", X, ranges="ist").scale[0, 0] == np.float32(2 / 15)


def test_a_range_search_lowers_the_error_at_three_bits():
    W, X = layer(128, 32, 800)
    W[:, ::17] *= 4
    H = X.T @ X
    plain, searched = (gptq.quantize(W, "int3-channel", X, search=s).dequantize() for s in ("", "gptq"))
    assert metrics.hessian_error(W, searched, H) < metrics.hessian_error(W, plain, H)


def test_dead_columns_become_zero_and_disturb_nothing():
    W, X = layer(64)
    X[:, [3, 40]] = 0
    q = gptq.quantize(W, "int4-g32", X).dequantize()
    assert not q[:, [3, 40]].any() and np.isfinite(q).all()
    others = [c for c in range(64) if c not in (3, 40)]
    assert metrics.hessian_error(W[:, others], q[:, others], X.T[others] @ X[:, others]) < 0.02


def test_a_hessian_that_is_not_definite_raises_or_is_damped_or_falls_back():
    W, X = layer(64)
    X[:, 1] = X[:, 0]
    with pytest.raises(RangeError, match="not positive definite"):
        gptq.quantize(W, "int4-channel", X[:8], damp=0.0)
    dampened = gptq.quantize(W, "int4-channel", X[:8], damp=0.0, damp_step=0.01)
    assert np.isfinite(dampened.dequantize()).all()
    nearest = gptq.quantize(W, "int4-channel", X[:8], damp=0.0, fallback="nearest")
    np.testing.assert_array_equal(nearest.codes, refquant.quantize(W, "int4-channel").codes)


def test_gptaq_without_a_shift_of_its_input_is_gptq():
    W, X = layer(96, 10)
    ref = gptq.quantize(W, "int4-g32", X, precision="exact")
    got = gptaq.quantize(W, "int4-g32", X, native=X, precision="exact")
    np.testing.assert_array_equal(got.codes, ref.codes)
    moved = gptaq.quantize(W, "int4-g32", X, native=X * np.float32(1.1), alpha=0.0, precision="exact")
    np.testing.assert_array_equal(moved.codes, ref.codes)


def test_gptaq_comes_closer_to_the_output_of_the_original_model():
    W, X = layer(96, 32, 800)
    native = X + 0.2 * np.random.default_rng(7).standard_normal(X.shape).astype(np.float32) @ np.diag(X.std(axis=0))
    target = native.astype(np.float64) @ W.T
    errors = [
        np.square(X @ gptaq.quantize(W, "int4-channel", X, native=native, alpha=a).dequantize().T - target).sum()
        for a in (0.0, 1.0)
    ]
    assert errors[1] < errors[0]


def test_gptaq_depends_on_the_block_only_where_quantized_weights_are_carried():
    W, X = layer(96, 8)
    native = X + np.float32(0.1) * np.roll(X, 1, axis=1)
    own = [gptaq.quantize(W, "int4-channel", X, native=native, block=b, precision="exact").codes for b in (8, 96)]
    np.testing.assert_array_equal(*own)
    theirs = [
        gptaq.quantize(W, "int4-channel", X, native=native, block=b, precision="exact", carried="quantized").codes
        for b in (8, 96)
    ]
    assert (theirs[0] != theirs[1]).any()


def test_a_sweep_measures_the_codes_that_are_stored_where_the_zero_point_is_no_integer():
    grid = Grid(parse("uint4-zfloat").rule, np.float32([0.5]), np.float32([2.75]))
    got = grid.codes(np.float32([1.1]))
    np.testing.assert_array_equal(got, [4])  # round(2.2) + 2.75 without its fraction
    np.testing.assert_array_equal(grid.values(got), [(4 - 2.75) * 0.5])


def test_greedy_obq_takes_the_cheapest_weight_first():
    W, X = layer(24, 3)
    ref = obq.quantize(W, "int4-channel", X)
    H, _ = revive_dead(2 / len(X) * X.astype(np.float64).T @ X)
    H_inverse = np.linalg.inv(H + 0.01 * np.diagonal(H).mean() * np.eye(24))
    for row in range(3):
        w, left, scale = W[row].astype(np.float64), list(range(24)), float(ref.scale[row, 0])
        while left:
            inv = np.linalg.inv(np.linalg.inv(H_inverse)[np.ix_(left, left)])  # of the problem that is left
            q = np.clip(np.rint(w[left] / scale), -8, 7)
            error = w[left] - q * scale
            beyond = np.abs(error) > scale * 0.5000001
            loss = np.where(beyond if beyond.any() else True, error**2 / np.diagonal(inv), np.inf)
            i = int(np.argmin(loss))
            assert ref.codes[row, left[i]] == q[i]
            w[left] -= inv[:, i] * error[i] / inv[i, i]
            left.pop(i)


@pytest.mark.parametrize("spread, greed_wins", [(0.0, True), (1.0, False)])
def test_greed_pays_where_inputs_are_of_equal_size(spread, greed_wins):
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((1000, 64)) @ (rng.standard_normal((64, 64)) / 8 + np.eye(64))
    X = (mixed * np.exp(spread * rng.standard_normal(64))).astype(np.float32)
    W = rng.standard_normal((24, 64)).astype(np.float32)
    found = obq.quantize(W, "int4-channel", X), gptq.quantize(W, "int4-channel", X, order="activation")
    greedy, ordered = (metrics.hessian_error(W, q.dequantize(), X.T @ X) for q in found)
    assert (greedy < ordered) == greed_wins


def test_weights_and_inputs_are_not_changed():
    W, X = layer()
    before = W.tobytes(), X.tobytes()
    for method in ("gptq", "obq", "ldlq", "sparsegpt", "wanda", "magnitude"):
        refquant.quantize(W[:4], "int4-g32", method=method, calibration=X)
    assert (W.tobytes(), X.tobytes()) == before


@pytest.mark.parametrize("change, error, message", [
    ({"calibration": None}, QuantError, "calibration = None"),
    ({"calibration": np.zeros((4, 9), np.float32)}, ShapeError, "has 9 columns, expected 64"),
    ({"calibration": np.full((4, 64), np.nan)}, NonFiniteError, "nan"),
    ({"scheme": "Q4_0"}, SchemeError, "Take method nearest, awq or smoothquant"),
    ({"scheme": "int4-stochastic"}, SchemeError, "deterministic"),
    ({"scheme": "int4-b4x8"}, UnsupportedError, "granularity = b4x8"),
    ({"scheme": "int4-g48"}, ShapeError, "64, expected a positive multiple of 48"),
    ({"damp": 2.0}, RangeError, "damp, damp_step = 2.0"),
    ({"order": "random"}, RangeError, "order = 'random'"),
    ({"statistics": "new"}, RangeError, "statistics = 128, 'new'"),
    ({"dialect": "mine"}, SchemeError, "dialect = 'mine'"),
    ({"colour": 1}, SchemeError, "option colour is unknown"),
    ({"precision": "half"}, RangeError, "precision"),
    ({"method": "gptx"}, SchemeError, "method = 'gptx', expected one of nearest, gptq"),
    ({"method": "ldlq", "colour": 1}, SchemeError, "option colour is unknown to method 'ldlq'"),
    ({"method": "obq@ist"}, SchemeError, "option dialect is unknown to method"),
])  # fmt: skip
def test_refusals(change, error, message):
    W, X = layer()
    arguments = {"scheme": "int4-channel", "method": "gptq", "calibration": X, **change}
    with pytest.raises(error, match=message):
        refquant.quantize(W, **arguments)


def test_a_method_takes_options_of_the_rule_and_a_dialect_in_its_name():
    W, X = layer()
    ref = gptq.quantize(W, "int4-g32-full", X, dialect="llm-compressor", block=16)
    got = refquant.quantize(W, "int4-g32", method="gptq@llm-compressor", calibration=X, range_mode="full", block=16)
    np.testing.assert_array_equal(got.codes, ref.codes)
    assert got.scheme == parse("int4-g32-full")
