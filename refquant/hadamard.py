"""Hadamard matrices: entries +-1, orthogonal rows, so that a product spreads an outlier evenly over a whole vector.

    H H^T = n I              Q = H / sqrt(n) is orthogonal;  randomized: Q = diag(s) H / sqrt(n), s random signs

    order n              construction
    1, 2, 4, 8, ...      Sylvester: [[H, H], [H, -H]]
    12 20 60 108 140     Paley I, q = n - 1 a prime of the form 4k + 3
    28 36                Paley II, q = n / 2 - 1 a prime of the form 4k + 1
    40                   Sylvester's step on 20
    52 156 172           Williamson: four symmetric circulants of order 13, 39, 43
    K 2^k                the Kronecker product of Sylvester's 2^k and K, the largest of those orders that fits

    R_ij = legendre(i - j, q): 0 on the diagonal, 1 where i - j is a square modulo q, else -1
    Paley I    H = I + S,  S = [[0, -1], [1^T, R]]                          R is skew: S S^T = q I
    Paley II   H = [[1, 1], [1, -1]] x C + [[1, -1], [-1, -1]] x I,  C = [[0, 1], [1^T, R]]     R is symmetric
    Williamson [[A, B, C, D], [-B, A, -D, C], [-C, D, A, -B], [-D, -C, B, A]],  A^2 + B^2 + C^2 + D^2 = n I

Tables     QuIP# and QuaRot read these orders from Sloane's tables, which were made by such rules; rows, columns and
           signs are chosen here so that the matrices come out the same (those of compressed-tensors were compared
           whole, of QuaRot's 20 the first rows). Only the matrix that rotated a checkpoint undoes it.
Differs    compressed-tensors takes another 20 (by M. Hall); and of 24, 48, 104 ... it has tables of its own, where this
           page and QuaRot take Sylvester's step. It knows all orders up to 256; this page the eleven of QuaRot.
Shapes     matrix(n) int8 (n, n); transform(x) (..., n) like x, float32 or float64: x Q^T.
Arithmetic of `transform`: k butterfly passes, then one matrix product with the K part, then a division by sqrt(n).
Source     Sylvester 1867; Paley 1933; Williamson 1944; Sloane's library of Hadamard matrices (the circulants);
           QuIP#, arXiv:2402.04396, sec. 3; QuaRot, arXiv:2404.00456.
"""

import math
from functools import cache

import numpy as np

from refquant.errors import RangeError, ShapeError

PALEY_ONE, PALEY_TWO = (12, 20, 60, 108, 140), (28, 36)
WILLIAMSON = {  # first rows of A, B, C, D, which were found by search
    52: ("+-+--++++--+-", "+---++++++---", "++-+--++--+-+", "+----+--+----"),
    156: (
        "+++--+-+-----+--++----++--+-----+-+--++",
        "++++---+--++----+-+--+-+----++--+---+++",
        "+++--++-+---+-+--+----+--+-+---+-++--++",
        "+---++-+-+-----+++-++-+++-----+-+-++---",
    ),
    172: (
        "+---++--++++-+-+++-++--++-+++-+-++++--++---",
        "++-++++++----+-+--++-++-++--+-+----++++++-+",
        "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++",
        "++---++++-+--+--++--------++--+--+-++++---+",
    ),
}
FACTORS = (172, 156, 140, 108, 60, 52, 36, 28, 20, 12, 1)  # 40 is 2 * 20


@cache
def matrix(n: int) -> np.ndarray:
    """H (n, n) int8, read-only. Raises RangeError for an order that is not in the table."""
    K = factor(n)
    H = np.kron(sylvester(n // K), _table(K)).astype(np.int8)
    H.flags.writeable = False
    return H


def factor(n: int) -> int:
    """K with n = K 2^k. Raises RangeError."""
    for K in FACTORS:
        if n >= 1 and n % K == 0 and (n // K).bit_count() == 1:
            return K
    raise RangeError(f"hadamard: n = {n}, expected a power of two times one of {', '.join(map(str, FACTORS[::-1]))}")


def transform(x: np.ndarray) -> np.ndarray:
    """x Q^T along the last axis, without forming Q: rows of matrix(n) / sqrt(n) are what x is multiplied with."""
    if x.ndim == 0 or x.dtype not in (np.float32, np.float64):
        raise ShapeError(f"hadamard.transform: x = {x.dtype}, {x.shape}, expected float32 or float64 (..., n)")
    n = x.shape[-1]
    K = factor(n)
    y = x.reshape(-1, n // K, K) @ _table(K).T.astype(x.dtype)
    half = 1
    while half < n // K:
        pairs = y.reshape(len(y), -1, 2, half, K)
        y = np.concatenate([pairs[:, :, :1] + pairs[:, :, 1:], pairs[:, :, :1] - pairs[:, :, 1:]], axis=2)
        half *= 2
    return y.reshape(x.shape) / x.dtype.type(math.sqrt(n))


def signs(n: int, rng: np.random.Generator) -> np.ndarray:
    """n random signs, float32: one uniform bit each."""
    return (1 - 2 * rng.integers(0, 2, n)).astype(np.float32)


def orthogonal(n: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Q float64 (n, n): matrix(n) / sqrt(n), with randomly signed rows where an rng is given."""
    Q = matrix(n) / math.sqrt(n)
    return Q if rng is None else signs(n, rng)[:, None] * Q


def sylvester(n: int) -> np.ndarray:
    """H of order n, a power of two, int8."""
    H = np.ones((1, 1), np.int8)
    while len(H) < n:
        H = np.block([[H, H], [H, -H]])
    return H


@cache
def _table(K: int) -> np.ndarray:
    if K == 1:
        return np.ones((1, 1), np.int8)
    if K in PALEY_ONE:
        return np.eye(K, dtype=np.int8) + _conference(K - 1, skew=True)
    if K in PALEY_TWO:
        C = _conference(K // 2 - 1, skew=False)
        return np.kron([[1, 1], [1, -1]], C) + np.kron([[1, -1], [-1, -1]], np.eye(K // 2, dtype=np.int8))
    A, B, C, D = (_circulant([1 if sign == "+" else -1 for sign in row]) for row in WILLIAMSON[K])
    return np.block([[A, B, C, D], [-B, A, -D, C], [-C, D, A, -B], [-D, -C, B, A]])


def _conference(q: int, skew: bool) -> np.ndarray:
    """[[0, +-1], [1^T, R]] of order q + 1 for a prime q."""
    squares = {i * i % q for i in range(1, q)}
    C = np.ones((q + 1, q + 1), np.int8)
    C[1:, 1:] = _circulant([0, *(1 if -j % q in squares else -1 for j in range(1, q))])
    C[0] = -1 if skew else 1
    C[0, 0] = 0
    return C


def _circulant(row: list[int]) -> np.ndarray:
    """M_ij = row[(j - i) mod n], int8."""
    n = len(row)
    return np.array(row, np.int8)[(np.arange(n)[None] - np.arange(n)[:, None]) % n]
