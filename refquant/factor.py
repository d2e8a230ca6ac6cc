"""Triangular factors of a Hessian and of its inverse, fast or in a fixed order of operations.

    H = R R^T           R upper triangular, positive diagonal           upper_factor
    H^-1 = U^T U        U = R^-1, upper triangular                      inverse_factor
    C -= A B            the product that carries errors forward         subtract_product

U is what GPTQ calls the Cholesky factor of H^-1. It needs no inverse of H: R is an ordinary Cholesky factor seen from
the last column, and inverting a triangle is cheap. That is less work than cholesky, inverse, cholesky, and more exact.

Modes       fast    any dtype, products by BLAS: the last bits depend on its build and on the number of threads.
            exact   float64; every sum is spelled as one elementwise multiplication and subtraction after another, in
                    ascending order of the summed index. IEEE 754 then fixes every bit, on any machine. n passes over an
                    n x n matrix: some 10 s at n = 1024.
Shapes      H (n, n) symmetric; R, U (n, n), zeros below the diagonal.
Errors      RangeError where H is not positive definite in the arithmetic of its dtype.
Source      Golub & Van Loan, Matrix Computations, 4th ed., sec. 4.2 (Cholesky, in blocks).
"""

import numpy as np

from refquant.errors import RangeError, ShapeError

LEAF = 64  # matrices up to this size are not divided further


def upper_factor(H: np.ndarray, exact: bool = False) -> np.ndarray:
    """R upper triangular with H = R R^T. Raises ShapeError, RangeError."""
    return factors(H, exact)[0]


def inverse_factor(H: np.ndarray, exact: bool = False) -> np.ndarray:
    """U upper triangular with H^-1 = U^T U. Raises ShapeError, RangeError."""
    return factors(H, exact)[1]


def factors(H: np.ndarray, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(R, U = R^-1). Raises ShapeError, RangeError."""
    if H.ndim != 2 or H.shape[0] != H.shape[1] or not H.size:
        raise ShapeError(f"factor: H.shape = {H.shape}, expected (n, n)")
    if exact:
        R = _in_order(H.astype(np.float64))
        return R, _substituted(R)
    R, U = np.zeros_like(H), np.zeros_like(H)
    _halved(H.copy(), R, U)
    return R, U


def subtract_product(C: np.ndarray, A: np.ndarray, B: np.ndarray, exact: bool = False) -> None:
    """C -= A B in place: by BLAS, or one outer product after another."""
    if exact:
        for k in range(A.shape[1]):
            C -= A[:, k, None] * B[k]
    else:
        C -= A @ B


def gram(X: np.ndarray, exact: bool = False) -> np.ndarray:
    """X^T X of X (tokens, n): by BLAS, or token by token in float64."""
    if not exact:
        return X.T @ X
    H = np.zeros((X.shape[1], X.shape[1]))
    subtract_product(H, -X.T.astype(np.float64), X.astype(np.float64), exact=True)
    return H


def _halved(H: np.ndarray, R: np.ndarray, U: np.ndarray) -> None:
    """Write R and U for H, whose upper left part is overwritten.

    H = [A   B]     R = [P Q]     D = S S^T,  Q = B S^-T,  A - Q Q^T = P P^T     U = [P^-1  -P^-1 Q S^-1]
        [B^T D]         [0 S]                                                        [0            S^-1 ]
    """
    n = len(H)
    if n <= LEAF:
        try:
            R[:] = np.linalg.cholesky(H[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError as error:
            raise _not_definite() from error
        U[:] = _substituted(R)
        return
    first, second = slice(0, n // 2), slice(n // 2, n)
    _halved(H[second, second], R[second, second], U[second, second])
    Q = H[first, second] @ U[second, second].T
    H[first, first] -= Q @ Q.T
    _halved(H[first, first], R[first, first], U[first, first])
    R[first, second] = Q
    U[first, second] = -(U[first, first] @ (Q @ U[second, second]))


def _in_order(A: np.ndarray) -> np.ndarray:
    """R for A, which is overwritten: the last column first, each taken from all before it."""
    for k in range(len(A) - 1, -1, -1):
        if not A[k, k] > 0:
            raise _not_definite()
        A[k, k] = np.sqrt(A[k, k])
        A[:k, k] /= A[k, k]
        A[k, :k] = 0
        A[:k, :k] -= A[:k, k, None] * A[:k, k]
    return A


def _substituted(R: np.ndarray) -> np.ndarray:
    """R^-1 by back substitution on the identity, the last row first."""
    U = np.eye(len(R), dtype=R.dtype)
    for k in range(len(R) - 1, -1, -1):
        U[k, k:] /= R[k, k]
        U[:k, k:] -= R[:k, k, None] * U[k, k:]
    return U


def _not_definite() -> RangeError:
    return RangeError("factor: H is not positive definite, expected that it is: more tokens, or more damping")
