import numpy as np
import pytest

from refquant import llm_int8
from refquant.errors import NonFiniteError, RangeError, ShapeError

DEFAULT, CUDA = (llm_int8.DIALECTS[f"bitsandbytes-{name}"] for name in ("default", "cuda"))


@pytest.fixture(scope="module")
def layer():
    rng = np.random.default_rng(8)
    X, W = rng.standard_normal((16, 128), dtype=np.float32), rng.standard_normal((32, 128), dtype=np.float32)
    X[3, 7], X[5, 90] = 60, -45
    X[4, 7] = 5.9  # below the threshold, and the largest of its row
    return X, W


def test_rows_are_divided_by_their_largest_and_rounded_to_even():
    x = np.float32([[127, 2.5, 3.5, -0.5], [0, 0, 0, 0], [-2, 1, 0, 0]])
    got = llm_int8.encode(x)
    np.testing.assert_array_equal(got.codes, [[127, 2, 4, 0], [0, 0, 0, 0], [-127, 64, 0, 0]])
    np.testing.assert_array_equal(got.absmax, [127, 0, 2])
    np.testing.assert_allclose(got.dequantize()[0], [127, 2, 4, 0], rtol=1e-6)


def test_columns_with_an_outlier_are_left_out_of_the_codes(layer):
    X, _ = layer
    got = llm_int8.encode(X, 6.0)
    assert got.outliers.tolist() == [7, 90]
    assert not got.codes[:, [7, 90]].any()
    rest = np.delete(X, [7, 90], axis=1)
    np.testing.assert_array_equal(got.absmax, np.abs(rest).max(axis=1))


def test_bitsandbytes_lets_small_entries_of_an_outlier_column_set_the_absmax(layer):
    X, _ = layer
    assert llm_int8.encode(X, 6.0, DEFAULT).absmax[4] == np.float32(5.9)
    assert llm_int8.encode(X, 6.0).absmax[4] < 4
    assert llm_int8.encode(X, 6.0, CUDA).absmax[4] == np.float32(np.float16(5.9))


def test_the_product_is_that_of_the_codes_plus_the_outlier_columns(layer):
    X, W = layer
    x, w = llm_int8.encode(X, 6.0), llm_int8.encode(W)
    codes = x.codes.astype(np.int64) @ w.codes.T.astype(np.int64)
    ref = codes * np.outer(x.absmax.astype(float), w.absmax) / 16129 + X[:, [7, 90]].astype(float) @ W[:, [7, 90]].T
    np.testing.assert_allclose(llm_int8.matmul(X, w, wide=W), ref, rtol=1e-5, atol=1e-4)


def test_the_split_keeps_the_other_columns_precise(layer):
    X, W = layer
    w, exact = llm_int8.encode(W), X.astype(float) @ W.T
    split = llm_int8.matmul(X, w, wide=W) - exact
    whole = llm_int8.matmul(X, w, threshold=0) - exact
    assert np.square(split[[3, 5]]).mean() < np.square(whole[[3, 5]]).mean() / 100  # the rows with outliers


def test_an_int8_checkpoint_multiplies_outliers_with_decoded_weights(layer):
    X, W = layer
    w = llm_int8.encode(W)
    difference = llm_int8.matmul(X, w, wide=W) - llm_int8.matmul(X, w)
    ref = X[:, [7, 90]] @ (W - w.dequantize())[:, [7, 90]].T
    np.testing.assert_allclose(difference, ref, atol=1e-4)


def test_the_default_back_end_lost_a_digit_of_its_constant(layer):
    X, W = layer
    w = llm_int8.encode(W)
    exact, default, cuda = (llm_int8.matmul(X, w, rule=r, threshold=0) for r in (llm_int8.RULE, DEFAULT, CUDA))
    assert default.sum() / exact.sum() - 1 == pytest.approx(1.8e-5, rel=0.1)
    assert DEFAULT.constant / CUDA.constant - 1 == pytest.approx(1.8e-5, rel=0.05)
    np.testing.assert_allclose(cuda, exact, rtol=2e-2, atol=0.5)  # its absmax is a float16
    assert (cuda != exact).mean() > 0.5


def test_a_float16_absmax_moves_codes():
    x = np.random.default_rng(7).standard_normal((64, 512), dtype=np.float32)
    moved = llm_int8.encode(x, 6.0, CUDA).codes != llm_int8.encode(x, 6.0).codes
    assert 0 < moved.mean() < 0.05


@pytest.mark.parametrize(
    "x, threshold, rule, error, message",
    [
        (np.zeros(4), 0, llm_int8.RULE, ShapeError, r"x\.shape = \(4,\), expected a matrix"),
        (np.full((2, 2), np.nan), 0, llm_int8.RULE, NonFiniteError, "nan"),
        (np.ones((2, 2)), -1, llm_int8.RULE, RangeError, "threshold = -1"),
        (np.ones((2, 2)), float("nan"), llm_int8.RULE, RangeError, "threshold = nan"),
        (np.full((2, 2), 1e5), 0, CUDA, RangeError, "expected one that float16 holds"),
    ],
)
def test_refusals(x, threshold, rule, error, message):
    with pytest.raises(error, match=message):
        llm_int8.encode(x, threshold, rule)


def test_shapes_must_fit():
    with pytest.raises(ShapeError, match=r"expected \(tokens, 8\)"):
        llm_int8.matmul(np.ones((2, 4)), llm_int8.encode(np.ones((3, 8))))
