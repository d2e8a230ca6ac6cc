"""What the rows of matrix products hold: kernel, buffers and numbers, by the type of the matrix."""

import numpy as np

from runtime.jit import Compiled
from runtime.kernels.activations import BF16
from runtime.kernels.gemm_super import RAISED
from runtime.scratch import Form, Rounded
from runtime.weights import Linear, padded


def product_record(
    linear: Linear, x: np.ndarray, y: np.ndarray, forms: dict[int, Form | Rounded], panels: np.ndarray, many: bool
) -> tuple[Compiled, list[np.ndarray | None], list[int | Compiled | None]]:
    """The kernel of a matrix product, its buffers and its numbers."""
    product, stride = linear.product, padded(linear.rows) * 4
    kernel = product.matmul if many else product.matvec
    if product.form == BF16:
        numbers = [linear.n, stride, 0, 0, padded(linear.n) * 2]
        return kernel, [linear.packed, forms[BF16].codes, None, None, y, None], numbers
    if product.form:
        form = forms[product.form]
        sums = form.halves if product.halves else form.sums
        codes = form.raised if kernel in RAISED else form.codes
        buffers = [linear.packed, codes, form.e, sums, y, panels, product.tables]
        return kernel, buffers, [linear.n, stride, product.unpack, product.bias, 0]
    return kernel, [linear.packed, x, None, None, y, panels], [linear.n, stride, 0, 0, padded(linear.n) * 4]


def forms(linears: list[Linear]) -> int:
    """The forms of x that these matrices read."""
    found = 0
    for linear in linears:
        found |= linear.product.form
    return found
