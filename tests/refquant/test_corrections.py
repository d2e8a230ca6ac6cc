"""Dense and sparse, low rank: what is stored beside the codes, and that it pays."""

import numpy as np
import pytest

import refquant
from refquant import compensated, low_rank, sparse_split
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError
from refquant.hessian import Hessian

SCHEME = "int3-g32"


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    W = rng.standard_t(3, (32, 64))
    X = rng.standard_normal((256, 64)) @ (rng.standard_normal((64, 64)) / 8 + np.eye(64))
    return W.astype(np.float32), (X * np.exp(rng.standard_normal(64))).astype(np.float32)


def error(W, tensor, X) -> float:
    return float(np.mean(np.square(X @ (W - tensor.dequantize()).T, dtype=np.float64)))


@pytest.mark.parametrize("score", sparse_split.SCORES)
def test_kept_weights_are_exact_and_the_rest_rounds_better(score):
    W, X = layer()
    got = refquant.quantize(W, SCHEME, method="sparse", calibration=X, share=0.03, score=score)
    entries = got.extras["sparse_values"]
    assert entries.size == int(0.03 * W.size)
    kept = np.zeros(W.shape, bool)
    rows = np.repeat(np.arange(32), np.diff(got.extras["sparse_start"]))
    kept[rows, got.extras["sparse_columns"]] = True
    np.testing.assert_array_equal(got.dequantize()[kept], W[kept])
    rest = refquant.quantize(np.where(kept, 0, W).astype(np.float32), SCHEME)
    np.testing.assert_array_equal(got.codes, rest.codes)
    assert error(W, got, X) < 0.8 * error(W, refquant.quantize(W, SCHEME), X)
    assert got.nbytes == rest.nbytes + 33 * 4 + entries.size * 8


def test_the_scores_are_the_formulas():
    W, X = layer()
    scheme = sparse_split.parse(SCHEME)
    H = Hessian()
    H.update(X)
    exact = 2 * X.T.astype(np.float64) @ X / len(X)
    exact += 0.01 * np.mean(np.diagonal(exact)) * np.eye(64)
    gap = W - refquant.quantize(W, SCHEME).dequantize()
    ref = gap.astype(np.float64) ** 2 / (2 * np.diagonal(np.linalg.inv(exact)))
    np.testing.assert_allclose(sparse_split.scores(W, scheme, H, "error"), ref, rtol=1e-2)
    ref = W.astype(np.float64) ** 2 * 2 * np.mean(X.astype(np.float64) ** 2, axis=0)
    np.testing.assert_allclose(sparse_split.scores(W, scheme, X, "sensitivity"), ref, rtol=1e-4)


def test_no_share_is_plain_rounding_and_all_of_it_is_the_matrix():
    W, _ = layer()
    none = sparse_split.quantize(W, SCHEME, share=0, score="magnitude")
    np.testing.assert_array_equal(none.dequantize(), refquant.quantize(W, SCHEME).dequantize())
    whole = sparse_split.quantize(W, SCHEME, share=1, score="magnitude")
    np.testing.assert_array_equal(whole.dequantize(), W)
    half = sparse_split.quantize(W, SCHEME, share=1, score="magnitude", value_dtype="float16")
    np.testing.assert_array_equal(half.dequantize(), W.astype(np.float16))
    ties = sparse_split.largest(np.ones((2, 3)), 2)
    assert ties.tolist() == [[True, True, False], [False, False, False]]


@pytest.mark.parametrize("dialect", low_rank.DIALECTS)
def test_a_low_rank_correction_lowers_the_error_the_more_the_higher_its_rank(dialect):
    W, X = layer()
    low = np.random.default_rng(1).standard_normal((32, 2)) @ np.random.default_rng(2).standard_normal((2, 64))
    W = (W + 6 * low).astype(np.float32)
    errors = [
        error(W, refquant.quantize(W, SCHEME, method="low_rank", calibration=X, dialect=dialect, rank=r), X)
        for r in (2, 8, 32)
    ]
    plain = error(W, refquant.quantize(W, SCHEME), X)
    assert plain > errors[0] > errors[1] > errors[2]
    if dialect:
        assert errors[2] < 1e-6 * plain  # full rank: the error itself


def test_the_truncation_is_the_best_of_its_rank_in_the_weighted_norm():
    rng = np.random.default_rng(3)
    M, a = rng.standard_normal((10, 12)), np.exp(rng.standard_normal(12))
    up, down = low_rank.truncated(M, 3, a)
    sizes = np.linalg.svd(M * a, compute_uv=False)
    assert np.linalg.norm((M - up @ down) * a) ** 2 == pytest.approx(np.sum(sizes[3:] ** 2), rel=1e-5)


def test_sweeps_never_raise_the_error():
    W, _ = layer()
    errors = [np.linalg.norm(W - low_rank.quantize(W, SCHEME, rank=4, sweeps=n).dequantize()) for n in range(4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_corrections_with_wrong_names_or_shapes_are_refused():
    q = refquant.quantize(np.ones((4, 8), np.float32), "int4")
    with pytest.raises(ShapeError, match="expected one of"):
        compensated.compensate(q, bias=np.ones(4))
    with pytest.raises(ShapeError, match=r"channel_scale\.shape"):
        compensated.compensate(q, channel_scale=np.ones(4))
    with pytest.raises(ShapeError, match=r"down\.shape"):
        compensated.compensate(q, up=np.ones((4, 2)), down=np.ones((3, 8)))


def test_scale_and_groups_out_of_order_are_undone_in_the_right_order():
    W, X = layer()
    q = refquant.quantize(W, SCHEME, method="gptq", calibration=X, order="activation")
    assert "g_idx" in q.extras
    s = np.exp(np.random.default_rng(4).standard_normal(64)).astype(np.float32)
    got = compensated.compensate(q, channel_scale=s)
    np.testing.assert_array_equal(got.dequantize(), q.dequantize() / s)
    np.testing.assert_array_equal(np.asarray(got), got.dequantize())
    np.testing.assert_array_equal(got.without_correction().dequantize(), q.dequantize())


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda W, X: sparse_split.quantize(W, SCHEME), QuantError),
        (lambda W, X: sparse_split.quantize(W, SCHEME, X, share=2), RangeError),
        (lambda W, X: sparse_split.quantize(W, SCHEME, X, score="luck"), RangeError),
        (lambda W, X: low_rank.quantize(W, SCHEME, rank=0), RangeError),
        (lambda W, X: low_rank.quantize(W, SCHEME, rank=33), RangeError),
        (lambda W, X: low_rank.quantize(W, SCHEME, dialect="x"), SchemeError),
        (lambda W, X: low_rank.quantize(W, SCHEME, dialect="l2qer"), QuantError),
    ],
)
def test_refusals(call, error):
    W, X = layer()
    with pytest.raises(error):
        call(W, X)
