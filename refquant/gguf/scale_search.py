"""The scale searches of ggml: which integers and which scale stand for a group of weights with the least error.

                         x is near            integers l        least                      in ggml
    signed_scale         scale l              -top .. top - 1   sum w (x - scale l)^2      make_qx_quants, rmse_type 1
    signed_descent       scale l              -top .. top - 1   sum x^2 (x - scale l)^2    make_q3_quants, do_rmse
    scale_and_minimum    scale l + minimum    0 .. top          sum w (x - x^)^2 or        make_qkx2_quants and
                                                                sum w |x - x^|             make_qkx3_quants: the same
    positive_scale       scale l, x >= 0      0 .. top          sum w (x - scale l)^2      make_qp_quants

Inverse scales near top / extreme are tried, and the best trial is kept, or one integer after the other is improved. For
given l least squares has a closed form: scale = sum(w x l) / sum(w l l), which lowers the error by
sum(w x l)^2 / sum(w l l); so trials are compared by that quotient, multiplied out.

Shapes   x and w are (n, groups) float32: a group is a column, so that an operation on rows serves all groups at once.
         scale, minimum: (groups,) float32. codes: (n, groups) uint8, l + top where l is signed.
Order    every operation is float32, rounded once, in the order of C: a * b * c is (a * b) * c, no product is fused into
         a sum, and a sum runs down the column term by term (`total`). Another order changes codes.
Names    xl is sum(w x l), ll is sum(w l l), iscale the inverse of a scale.
Zero     where the largest |x| is below 1e-15 (`ALL_ZERO`), scale and codes are 0, signed codes included;
         scale_and_minimum instead gives equal weights a scale of 0, and their own value, if negative, as the minimum.
Ties     a trial must be strictly better than the best before it; the first extreme of a group is its extreme.
Total    sums may overflow to infinity or NaN, in which case comparisons are false and the best trial so far stays.
         Nothing warns.
Source   ggml/src/ggml-quants.c.
"""

from typing import NamedTuple

import numpy as np

ALL_ZERO = np.float32(1e-15)  # GROUP_MAX_EPS: a group whose extreme is below gets scale 0 and codes 0
MAGIC = np.float32(1.5 * 2**23)


class Grid(NamedTuple):
    """Trials of `scale_and_minimum`: iscale = (first + step * i + top) / (max - minimum), i = 0 .. last."""

    first: float
    step: float
    last: int


def columns(x: np.ndarray, size: int) -> np.ndarray:
    """(..., k * size) -> (size, groups) contiguous: every run of `size` values becomes a column."""
    return np.ascontiguousarray(x.reshape(-1, size).T)


def nearest_int(x: np.ndarray) -> np.ndarray:
    """float32 -> int32, half to even: the sum x + 1.5 * 2^23 has no fraction left, its low 23 bits are the integer.

    Right for |x| < 2^22. Beyond, ggml reads the same bits, and so do we: 0 for NaN, -2^22 for an infinity.
    """
    return (np.asarray(x + MAGIC).view(np.int32) & np.int32(0x7FFFFF)) - np.int32(0x400000)


def total(terms: np.ndarray, start: np.ndarray | float = 0.0) -> np.ndarray:
    """start + terms[0] + terms[1] + ..., in this order: (n, groups) -> (groups,). np.sum has another order."""
    result = np.zeros(terms.shape[1:], np.float32)
    result += start
    for term in terms:
        result += term
    return result


@np.errstate(all="ignore")
def signed_scale(x: np.ndarray, w: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scale, codes. The grid is iscale = -(top + t / 10) / extreme, t = 0, -9 .. -1, 1 .. 9.

    The extreme, the x of the largest |x|, is thus near code 0, which reaches one step farther than 2 top - 1 does.
    Where all w are 0, scale is 0 and the codes are those of t = 0.
    """
    extreme = first_extreme(x)
    wx = w * x

    def rounded(iscale: np.ndarray) -> np.ndarray:
        return np.clip(nearest_int(iscale * x), -top, top - 1)

    def sums(iscale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        l = rounded(iscale).astype(np.float32)
        return total(wx * l), total(w * l * l)

    iscale = np.float32(-top) / extreme
    xl, ll = sums(iscale)
    scale = np.where(ll == 0, np.float32(0), xl / ll)
    gain = scale * xl
    for t in (*range(-9, 0), *range(1, 10)):
        trial = -(np.float32(top) + np.float32(0.1) * np.float32(t)) / extreme
        xl, ll = sums(trial)
        better = (ll > 0) & (xl * xl > gain * ll)
        iscale = np.where(better, trial, iscale)
        scale = np.where(better, xl / ll, scale)
        gain = np.where(better, scale * xl, gain)
    zero = np.abs(extreme) < ALL_ZERO
    return np.where(zero, np.float32(0), scale), np.where(zero, 0, rounded(iscale) + top).astype(np.uint8)


@np.errstate(all="ignore")
def signed_descent(x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scale, codes. No grid: from iscale = -top / extreme, one code at a time moves to its best integer.

    Codes are visited in order, up to five times; a code moves where the quotient of the sums grows, so that the sums
    that the next code sees are already new.
    """
    extreme = first_extreme(x)
    zero = np.abs(extreme) < ALL_ZERO
    w = x * x
    wx = w * x
    codes = np.clip(nearest_int(np.float32(-top) / extreme * x), -top, top - 1).astype(np.float32)
    codes = np.where(zero, np.float32(-top), codes)
    xl, ll = total(wx * codes), total(w * codes * codes)
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            old = codes[i]
            xl_rest, ll_rest = xl - wx[i] * old, ll - w[i] * old * old
            new = np.clip(nearest_int(x[i] * ll_rest / xl_rest), -top, top - 1).astype(np.float32)
            xl_new, ll_new = xl_rest + wx[i] * new, ll_rest + w[i] * new * new
            better = (xl_rest > 0) & (new != old) & (ll_new > 0) & ~zero
            better &= xl_new * xl_new * ll > xl * xl * ll_new
            if better.any():
                changed = True
                codes[i] = np.where(better, new, old)
                xl, ll = np.where(better, xl_new, xl), np.where(better, ll_new, ll)
        if not changed:
            break
    return np.where((ll > 0) & ~zero, xl / ll, np.float32(0)), (codes + np.float32(top)).astype(np.uint8)


@np.errstate(all="ignore")
def scale_and_minimum(
    x: np.ndarray, w: np.ndarray, top: int, grid: Grid, absolute: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale, minimum, codes; the minimum is at most 0, since it is stored as a positive number to subtract.

    A trial rounds (x - minimum) * iscale and then solves the 2 x 2 normal equations for both unknowns; a positive
    minimum is replaced by 0 and the scale solved for alone. Trials are compared by their error, squared or `absolute`.
    Later trials build on the minimum of the best one so far. A group of equal weights has a scale of 0.
    """
    minimum = np.take_along_axis(x, x.argmin(axis=0)[None], axis=0)[0]  # of +0.0 and -0.0, the first
    minimum = np.where(minimum > 0, np.float32(0), minimum)
    maximum = x.max(axis=0)
    wx = w * x
    sum_w, sum_x = total(w[1:], w[0]), total(wx[1:], wx[0])

    def rounded(iscale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        return np.clip(nearest_int(iscale * (x - minimum)), 0, top)

    def error(scale: np.ndarray, l: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        off = scale * l + minimum - x
        return total(w * (np.abs(off) if absolute else off * off))

    iscale = np.float32(top) / (maximum - minimum)  # infinite for equal weights: all codes and sums are 0 then
    scale = np.where(maximum > minimum, np.float32(1) / iscale, np.float32(0))
    least = error(scale, rounded(iscale, minimum).astype(np.float32), minimum)
    best = iscale, minimum  # the codes
    for i in range(grid.last + 1):
        offset = np.float32(grid.first) + np.float32(grid.step) * np.float32(i) + np.float32(top)
        trial = offset / (maximum - minimum)
        l = rounded(trial, minimum).astype(np.float32)
        wl = w * l
        sum_l, sum_l2, sum_xl = total(wl), total(wl * l), total(wl * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        trial_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = trial_minimum > 0
        trial_scale = np.where(above, sum_xl / sum_l2, trial_scale)
        trial_minimum = np.where(above, np.float32(0), trial_minimum)
        trial_error = error(trial_scale, l, trial_minimum)
        better = (determinant > 0) & (trial_error < least)
        best = np.where(better, trial, best[0]), np.where(better, minimum, best[1])
        least = np.where(better, trial_error, least)
        scale = np.where(better, trial_scale, scale)
        minimum = np.where(better, trial_minimum, minimum)
    return scale, minimum, rounded(*best).astype(np.uint8)


@np.errstate(all="ignore")
def positive_scale(x: np.ndarray, w: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scale, codes. The grid is iscale = (top + t / 10) / max, t = 0, -4 .. -1, 1 .. 4; a descent follows.

    The grid compares errors with scale = 1 / iscale; the descent moves one code at a time as `signed_descent` does.
    Codes are bytes in ggml: a negative integer, which only a negative x can give, is kept modulo 256.
    """
    peak = x.max(axis=0)
    zero = peak < ALL_ZERO

    def rounded(iscale: np.ndarray) -> np.ndarray:
        return np.minimum(nearest_int(iscale * x), top)

    def error(iscale: np.ndarray, l: np.ndarray) -> np.ndarray:
        off = x - np.float32(1) / iscale * l.astype(np.float32)
        return total(w * off * off)

    iscale = np.float32(top) / peak
    least = error(iscale, nearest_int(iscale * x).astype(np.uint8))
    for t in (*range(-4, 0), *range(1, 5)):
        trial = (np.float32(0.1) * np.float32(t) + np.float32(top)) / peak
        trial_error = error(trial, rounded(trial))
        better = trial_error < least
        least = np.where(better, trial_error, least)
        iscale = np.where(better, trial, iscale)

    wx, l = w * x, rounded(iscale).astype(np.float32)
    xl, ll = total(wx * l), total(w * l * l)
    codes = rounded(iscale).astype(np.uint8)
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            old = codes[i].astype(np.float32)
            xl_rest, ll_rest = xl - wx[i] * old, ll - w[i] * old * old
            integer = np.minimum(nearest_int(x[i] * ll_rest / xl_rest), top)
            new = integer.astype(np.float32)
            xl_new, ll_new = xl_rest + wx[i] * new, ll_rest + w[i] * new * new
            better = (xl_rest > 0) & (ll_rest > 0) & (integer != codes[i])
            better &= xl_new * xl_new * ll > xl * xl * ll_new
            if better.any():
                changed = True
                codes[i] = np.where(better, integer.astype(np.uint8), codes[i])
                xl, ll = np.where(better, xl_new, xl), np.where(better, ll_new, ll)
        if not changed:
            break
    return np.where((ll > 0) & ~zero, xl / ll, np.float32(0)), np.where(zero, np.uint8(0), codes)


def first_extreme(x: np.ndarray) -> np.ndarray:
    """The x of the largest |x| of every column, the first of equals; +0 where there is none but zeros and NaN."""
    first = np.fmax(np.abs(x), np.float32(0)).argmax(axis=0)
    extreme = np.take_along_axis(x, first[None], axis=0)[0]
    return np.where(np.abs(extreme) > 0, extreme, np.float32(0))
