"""The scale searches of ggml on sixteen groups at once: the twins of `refquant.gguf.scale_search`, which explains them.

A group is a lane: x, w (n, 16) float32 are n weights of sixteen groups, codes (n, 16) int32 what is found, l + top
where l is signed. A test that decides about one group in C chooses lanes here, and both outcomes are computed.
"""

import numpy as np

from runtime.encoders.lanes import (
    anywhere,
    clip,
    fill_i32,
    lesser_i32,
    load,
    nearest_int,
    no,
    store,
    where,
)
from runtime.jit import inlined
from runtime.simd import absolute, larger, smaller, splat_f32, to_f32

ALL_ZERO = np.float32(1e-15)  # a group whose extreme is below gets scale 0 and codes 0
TENTH = np.float32(0.1)
ONE = np.float32(1)
NOTHING = np.float32(0)


@inlined
def first_extreme(x):
    """The x of the largest |x|, the first of equals; +0 where there are only zeros and NaN."""
    extreme = size = splat_f32(NOTHING)
    for i in range(len(x)):
        v = load(x, i)
        further = absolute(v) > size
        size = where(further, absolute(v), size)
        extreme = where(further, v, extreme)
    return extreme


@inlined
def total(x):
    """x[0] + x[1] + ..., in this order, from 0 on."""
    result = splat_f32(NOTHING)
    for i in range(len(x)):
        result = result + load(x, i)
    return result


@inlined
def _signed_sums(x, w, iscale, top):
    """sum(w x l) and sum(w l l)."""
    xl = ll = splat_f32(NOTHING)
    for i in range(len(x)):
        v, weight = load(x, i), load(w, i)
        l = to_f32(clip(nearest_int(iscale * v), -top, top - 1))
        xl = xl + weight * v * l
        ll = ll + weight * l * l
    return xl, ll


@inlined
def signed_scale(x, w, codes, top):
    """The scale; fills `codes`."""
    extreme, zero = first_extreme(x), splat_f32(NOTHING)
    iscale = splat_f32(np.float32(-top)) / extreme
    xl, ll = _signed_sums(x, w, iscale, top)
    scale = where(ll == NOTHING, zero, xl / ll)
    gain = scale * xl
    for t in range(-9, 10):
        if t != 0:
            trial = splat_f32(-(np.float32(top) + TENTH * np.float32(t))) / extreme
            xl, ll = _signed_sums(x, w, trial, top)
            better = (ll > NOTHING) & (xl * xl > gain * ll)
            iscale = where(better, trial, iscale)
            scale = where(better, xl / ll, scale)
            gain = where(better, scale * xl, gain)
    nothing = absolute(extreme) < ALL_ZERO
    for i in range(len(x)):
        code = clip(nearest_int(iscale * load(x, i)), -top, top - 1) + top
        store(codes, i, where(nothing, fill_i32(0), code))
    return where(nothing, zero, scale)


@inlined
def signed_descent(x, codes, top):
    """The scale; fills `codes`. Weights are x^2."""
    extreme, zero = first_extreme(x), splat_f32(NOTHING)
    nothing = absolute(extreme) < ALL_ZERO
    iscale = splat_f32(np.float32(-top)) / extreme
    xl = ll = zero
    for i in range(len(x)):
        v = load(x, i)
        code = where(nothing, fill_i32(-top), clip(nearest_int(iscale * v), -top, top - 1))
        store(codes, i, code + top)
        w, l = v * v, to_f32(code)
        xl = xl + w * v * l
        ll = ll + w * l * l
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            v, old = load(x, i), to_f32(load(codes, i) - top)
            w = v * v
            xl_rest, ll_rest = xl - w * v * old, ll - w * old * old
            code = clip(nearest_int(v * ll_rest / xl_rest), -top, top - 1)
            new = to_f32(code)
            xl_new, ll_new = xl_rest + w * v * new, ll_rest + w * new * new
            better = (xl_rest > NOTHING) & (new != old) & (ll_new > NOTHING) & no(nothing)
            better = better & (xl_new * xl_new * ll > xl * xl * ll_new)
            if anywhere(better):
                changed = True
                store(codes, i, where(better, code + top, load(codes, i)))
                xl, ll = where(better, xl_new, xl), where(better, ll_new, ll)
        if not changed:
            break
    return where((ll > NOTHING) & no(nothing), xl / ll, zero)


@inlined
def _error(x, w, codes, scale, minimum, absolute_error):
    """sum(w |off|) or sum(w off^2), off = x^ - x."""
    result = splat_f32(NOTHING)
    for i in range(len(x)):
        off = scale * to_f32(load(codes, i)) + minimum - load(x, i)
        result = result + load(w, i) * (absolute(off) if absolute_error else off * off)
    return result


@inlined
def scale_and_minimum(x, w, codes, top, first, step, last, absolute_error):
    """The scale and the minimum, at most 0; fills `codes`. Trials are first + step i, i = 0 .. last."""
    zero = splat_f32(NOTHING)
    minimum = maximum = load(x, 0)
    sum_w = load(w, 0)
    sum_x = sum_w * minimum
    for i in range(1, len(x)):
        v, weight = load(x, i), load(w, i)
        minimum, maximum = smaller(v, minimum), larger(v, maximum)
        sum_w = sum_w + weight
        sum_x = sum_x + weight * v
    minimum = where(minimum > NOTHING, zero, minimum)
    flat = no(maximum > minimum)
    iscale = splat_f32(np.float32(top)) / (maximum - minimum)
    scale = where(flat, zero, splat_f32(ONE) / iscale)
    for i in range(len(x)):
        store(codes, i, clip(nearest_int(iscale * (load(x, i) - minimum)), 0, top))
    least = _error(x, w, codes, scale, minimum, absolute_error)
    best_iscale, best_minimum = iscale, minimum  # of the codes
    for t in range(last + 1):
        trial = splat_f32(first + step * np.float32(t) + np.float32(top)) / (maximum - minimum)
        sum_l = sum_l2 = sum_xl = zero
        for i in range(len(x)):
            v, weight = load(x, i), load(w, i)
            code = clip(nearest_int(trial * (v - minimum)), 0, top)
            store(codes, i, code)
            l = to_f32(code)
            wl = weight * l
            sum_l = sum_l + wl
            sum_l2 = sum_l2 + wl * l
            sum_xl = sum_xl + wl * v
        determinant = sum_w * sum_l2 - sum_l * sum_l
        its_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        its_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = its_minimum > NOTHING
        its_scale = where(above, sum_xl / sum_l2, its_scale)
        its_minimum = where(above, zero, its_minimum)
        error = _error(x, w, codes, its_scale, its_minimum, absolute_error)
        better = (determinant > NOTHING) & (error < least) & no(flat)
        best_iscale, best_minimum = where(better, trial, best_iscale), where(better, minimum, best_minimum)
        least = where(better, error, least)
        scale = where(better, its_scale, scale)
        minimum = where(better, its_minimum, minimum)
    for i in range(len(x)):
        code = clip(nearest_int(best_iscale * (load(x, i) - best_minimum)), 0, top)
        store(codes, i, where(flat, fill_i32(0), code))
    return scale, minimum


@inlined
def _positive_error(x, w, iscale, top, bytes_only):
    result, scale = splat_f32(NOTHING), splat_f32(ONE) / iscale
    for i in range(len(x)):
        v = load(x, i)
        code = nearest_int(iscale * v)
        code = code & 255 if bytes_only else lesser_i32(code, fill_i32(top))
        off = v - scale * to_f32(code)
        result = result + load(w, i) * off * off
    return result


@inlined
def positive_scale(x, w, codes, top):
    """The scale; fills `codes`, which are bytes in ggml: kept modulo 256."""
    zero = splat_f32(NOTHING)
    peak = zero
    for i in range(len(x)):
        peak = larger(load(x, i), peak)
    nothing = peak < ALL_ZERO
    iscale = splat_f32(np.float32(top)) / peak
    least = _positive_error(x, w, iscale, top, True)
    for t in range(-4, 5):
        if t != 0:
            trial = splat_f32(TENTH * np.float32(t) + np.float32(top)) / peak
            error = _positive_error(x, w, trial, top, False)
            better = error < least
            least, iscale = where(better, error, least), where(better, trial, iscale)
    xl = ll = zero
    for i in range(len(x)):
        v, weight = load(x, i), load(w, i)
        code = lesser_i32(nearest_int(iscale * v), fill_i32(top))
        store(codes, i, code & 255)
        l = to_f32(code)
        xl = xl + weight * v * l
        ll = ll + weight * l * l
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            v, weight, code = load(x, i), load(w, i), load(codes, i)
            old = to_f32(code)
            xl_rest, ll_rest = xl - weight * v * old, ll - weight * old * old
            moved = lesser_i32(nearest_int(v * ll_rest / xl_rest), fill_i32(top))
            new = to_f32(moved)
            xl_new, ll_new = xl_rest + weight * v * new, ll_rest + weight * new * new
            better = (xl_rest > NOTHING) & (ll_rest > NOTHING) & (moved != code)
            better = better & (xl_new * xl_new * ll > xl * xl * ll_new)
            if anywhere(better):
                changed = True
                store(codes, i, where(better, moved & 255, code))
                xl, ll = where(better, xl_new, xl), where(better, ll_new, ll)
        if not changed:
            break
    for i in range(len(x)):
        store(codes, i, where(nothing, fill_i32(0), load(codes, i)))
    return where((ll > NOTHING) & no(nothing), xl / ll, zero)
