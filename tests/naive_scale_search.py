"""The scale searches of ggml once more, one group and one number at a time, for weights of ordinary size.

Only the standard library. float32 arithmetic is float64 arithmetic, rounded once more after every operation: for one
+ - * / of two float32 numbers that is the same, since 53 >= 2 * 24 + 2.
"""

import struct


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def add(a, b):
    return f32(a + b)


def mul(*factors):
    product = factors[0]
    for factor in factors[1:]:
        product = f32(product * factor)
    return product


def div(a, b):
    return f32(a / b)


def total(terms, start=0.0):
    for term in terms:
        start = add(start, term)
    return start


def clipped(x, lo, hi):
    return max(lo, min(hi, round(x)))  # half to even


def extreme(x):
    return max(x, key=abs)  # the first


def signed_scale(x, w, top):
    """make_qx_quants(n, nmax, x, L, 1, qw)."""
    peak = extreme(x)
    if abs(peak) < 1e-15:
        return 0.0, [0] * len(x)
    best = None
    for t in [0, *range(-9, 0), *range(1, 10)]:
        iscale = div(-add(top, mul(f32(0.1), t)), peak)
        codes = [clipped(mul(iscale, v), -top, top - 1) for v in x]
        xl = total(mul(u, v, l) for u, v, l in zip(w, x, codes))
        ll = total(mul(u, l, l) for u, l in zip(w, codes))
        if best is None:
            scale = div(xl, ll) if ll else 0.0
            best = scale, mul(scale, xl), codes
        elif ll > 0 and mul(xl, xl) > mul(best[1], ll):
            scale = div(xl, ll)
            best = scale, mul(scale, xl), codes
    return best[0], [l + top for l in best[2]]


def descend(x, w, top, codes, lo, before):
    """The last part of make_q3_quants and make_qp_quants; `before`: the rest of ll must be positive without x, too."""
    xl = total(mul(u, v, l) for u, v, l in zip(w, x, codes))
    ll = total(mul(u, l, l) for u, l in zip(w, codes))
    for _ in range(5):
        changed = False
        for i, (u, v) in enumerate(zip(w, x)):
            xl_rest, ll_rest = add(xl, -mul(u, v, codes[i])), add(ll, -mul(u, codes[i], codes[i]))
            if xl_rest <= 0 or (before and ll_rest <= 0):
                continue
            code = clipped(div(mul(v, ll_rest), xl_rest), lo, top)
            xl_new, ll_new = add(xl_rest, mul(u, v, code)), add(ll_rest, mul(u, code, code))
            if code != codes[i] and ll_new > 0 and mul(xl_new, xl_new, ll) > mul(xl, xl, ll_new):
                codes[i], xl, ll, changed = code, xl_new, ll_new, True
        if not changed:
            break
    return div(xl, ll) if ll > 0 else 0.0


def signed_descent(x, top):
    """make_q3_quants(n, nmax, x, L, true)."""
    peak = extreme(x)
    if abs(peak) < 1e-15:
        return 0.0, [0] * len(x)
    iscale = div(-top, peak)
    codes = [clipped(mul(iscale, v), -top, top - 1) for v in x]
    scale = descend(x, [mul(v, v) for v in x], top - 1, codes, -top, before=False)
    return scale, [l + top for l in codes]


def positive_scale(x, w, top):
    """make_qp_quants(n, nmax, x, L, quant_weights)."""
    peak = max(x)
    if peak < 1e-15:
        return 0.0, [0] * len(x)
    best = None
    for t in [0, *range(-4, 0), *range(1, 5)]:
        iscale = div(add(mul(f32(0.1), t), top), peak)
        scale = div(1.0, iscale)
        off = [add(v, -mul(scale, clipped(mul(iscale, v), 0, top))) for v in x]
        error = total(mul(u, e, e) for u, e in zip(w, off))
        if best is None or error < best[0]:
            best = error, iscale
    codes = [clipped(mul(best[1], v), 0, top) for v in x]
    return descend(x, w, top, codes, 0, before=True), codes


def scale_and_minimum(x, w, top, first, step, last, absolute):
    """make_qkx2_quants(n, nmax, x, weights, L, the_min, Laux, rmin, rdelta, nstep, use_mad); the minimum, not its -."""
    minimum, maximum = min([*x, 0.0]), max(x)
    if maximum == minimum:
        return 0.0, minimum, [0] * len(x)
    sum_w = total(w[1:], w[0])
    sum_x = total((mul(u, v) for u, v in zip(w[1:], x[1:])), mul(w[0], x[0]))

    def rounded(iscale):
        return [clipped(mul(iscale, add(v, -minimum)), 0, top) for v in x]

    def error(scale, lo, codes):
        off = [add(add(mul(scale, l), lo), -v) for l, v in zip(codes, x)]
        return total(mul(u, abs(e) if absolute else mul(e, e)) for u, e in zip(w, off))

    iscale = div(top, add(maximum, -minimum))
    scale, codes = div(1.0, iscale), rounded(iscale)
    least = error(scale, minimum, codes)
    for i in range(last + 1):
        trial = rounded(div(add(add(f32(first), mul(f32(step), i)), top), add(maximum, -minimum)))
        l1 = total(mul(u, l) for u, l in zip(w, trial))
        l2 = total(mul(u, l, l) for u, l in zip(w, trial))
        xl = total(mul(u, l, v) for u, l, v in zip(w, trial, x))
        determinant = add(mul(sum_w, l2), -mul(l1, l1))
        if determinant <= 0:
            continue
        trial_scale = div(add(mul(sum_w, xl), -mul(sum_x, l1)), determinant)
        trial_minimum = div(add(mul(l2, sum_x), -mul(l1, xl)), determinant)
        if trial_minimum > 0:
            trial_scale, trial_minimum = div(xl, l2), 0.0
        trial_error = error(trial_scale, trial_minimum, trial)
        if trial_error < least:
            least, scale, minimum, codes = trial_error, trial_scale, trial_minimum, trial
    return scale, minimum, codes
