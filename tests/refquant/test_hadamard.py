"""Hadamard matrices: the one property that makes them, for every order that the table promises."""

import itertools

import numpy as np
import pytest

from refquant import hadamard
from refquant.errors import RangeError, ShapeError

TABLED = [12, 20, 28, 36, 40, 52, 60, 108, 140, 156, 172]  # QuaRot's
ORDERS = [1, 2, 4, 8, 64, *TABLED, 24, 96, 104, 160, 224, 312, 688, 896]


@pytest.mark.parametrize("n", ORDERS)
def test_rows_are_orthogonal_and_entries_are_signs(n):
    H = hadamard.matrix(n).astype(np.float64)  # products are exact
    assert set(np.unique(H)) <= {-1, 1}
    np.testing.assert_array_equal(H @ H.T, n * np.eye(n))


@pytest.mark.parametrize("n", [1, 2, 8, 12, 24, 40, 112, 208])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fast_transform_is_the_matrix(n, dtype):
    x = np.random.default_rng(n).standard_normal((3, 5, n)).astype(dtype)
    got = hadamard.transform(x)
    assert got.dtype == dtype
    ref = x.astype(np.float64) @ hadamard.matrix(n).T / n**0.5
    np.testing.assert_allclose(got, ref, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_powers_of_two_are_parities_of_common_bits():
    H = hadamard.matrix(16)
    for i, j in itertools.product(range(16), repeat=2):
        assert H[i, j] == (-1) ** (i & j).bit_count()


def test_random_signs_are_seeded_and_keep_lengths():
    a, b = (hadamard.orthogonal(24, np.random.default_rng(s)) for s in (1, 1))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a @ a.T, np.eye(24), atol=1e-12)
    assert (a != hadamard.orthogonal(24, np.random.default_rng(2))).any()


def test_an_outlier_is_spread_evenly():
    x = np.zeros((1, 256), np.float32)
    x[0, 77] = 16
    np.testing.assert_allclose(np.abs(hadamard.transform(x)), 1, rtol=1e-6)


@pytest.mark.parametrize("n", hadamard.WILLIAMSON)
def test_the_circulants_of_williamson_are_symmetric_and_their_squares_add_up(n):
    blocks = [hadamard._circulant([1 if sign == "+" else -1 for sign in row]) for row in hadamard.WILLIAMSON[n]]
    for M in blocks:
        assert M.shape == (n // 4, n // 4)
        np.testing.assert_array_equal(M, M.T)
    squares = sum(M.astype(np.int64) @ M for M in blocks)
    np.testing.assert_array_equal(squares, n * np.eye(n // 4))


def test_residues_are_read_the_way_of_the_tables():
    assert hadamard.matrix(12)[0].tolist() == [1] + [-1] * 11
    assert hadamard.matrix(12)[1].tolist() == [1, 1, -1, 1, -1, -1, -1, 1, 1, 1, -1, 1]
    assert hadamard.matrix(20)[1].tolist() == [int(s + "1") for s in "++-++----+-+-++++--+"]


@pytest.mark.parametrize("n", [0, -4, 3, 6, 44, 100, 78, 86])
def test_orders_without_a_construction_are_refused(n):
    with pytest.raises(RangeError, match="power of two times"):
        hadamard.matrix(n)


def test_integers_are_refused():
    with pytest.raises(ShapeError, match="float32 or float64"):
        hadamard.transform(np.ones(4, np.int32))
