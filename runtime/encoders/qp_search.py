"""The search of a positive scale for one group: `searches.positive_scale` without lanes, for IQ2_XXS."""

import numpy as np

from runtime.encoders.lattices import nearest_int
from runtime.jit import inlined_as_c

ALL_ZERO, NOTHING, ONE, TENTH = np.float32(1e-15), np.float32(0), np.float32(1), np.float32(0.1)


@inlined_as_c
def _error(x, w, iscale, top, bytes_only):
    result, scale = NOTHING, ONE / iscale
    for i in range(len(x)):
        code = nearest_int(iscale * x[i])
        code = code & 255 if bytes_only else min(code, top)
        off = x[i] - scale * np.float32(code)
        result += w[i] * off * off
    return result


@inlined_as_c
def positive_scale(x, w, top):
    """The scale s of codes 0 .. top with the least sum w (x - s code)^2 that the search finds."""
    peak = NOTHING
    for i in range(len(x)):
        peak = max(peak, x[i])
    if peak < ALL_ZERO:
        return NOTHING
    iscale = np.float32(top) / peak
    least = _error(x, w, iscale, top, True)
    for t in range(-4, 5):
        if t != 0:
            trial = (TENTH * np.float32(t) + np.float32(top)) / peak
            error = _error(x, w, trial, top, False)
            if error < least:
                least, iscale = error, trial
    codes = np.empty(32, np.int64)
    xl = ll = NOTHING
    for i in range(len(x)):
        code = min(nearest_int(iscale * x[i]), top)
        codes[i] = code & 255
        l = np.float32(code)
        xl += w[i] * x[i] * l
        ll += w[i] * l * l
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            old = np.float32(codes[i])
            xl_rest, ll_rest = xl - w[i] * x[i] * old, ll - w[i] * old * old
            if not (xl_rest > 0 and ll_rest > 0):
                continue
            moved = min(nearest_int(x[i] * ll_rest / xl_rest), top)
            if moved == codes[i]:
                continue
            new = np.float32(moved)
            xl_new, ll_new = xl_rest + w[i] * x[i] * new, ll_rest + w[i] * new * new
            if xl_new * xl_new * ll > xl * xl * ll_new:
                codes[i] = moved & 255
                xl, ll, changed = xl_new, ll_new, True
        if not changed:
            break
    return xl / ll if ll > 0 else NOTHING
