"""Weights as a file holds them to float32: F32, F16 and BF16, a multiple of 16 of them.

    f(source, target, count)      addresses; 1 if all are finite, else 0

Widening is exact. By address, since a mapped file may give them any alignment.
"""

import numpy as np

from runtime.encoders.lanes import anywhere, no
from runtime.encoders.rounding import INFINITY
from runtime.jit import entry, inlined
from runtime.simd import absolute, load_bf16x16, load_f16x16, load_f32x16, splat_f32, store_f32x16, window


def _widening(load, size: int):
    @inlined
    def widen(source, target, count):
        src, out = window(source, count * size), window(target, count * 4)
        bad = no(splat_f32(np.float32(0)) < INFINITY)
        for i in range(0, count, 16):
            v = load(src, i * size)
            store_f32x16(out, i * 4, v)
            bad = bad | no(absolute(v) < INFINITY)
        return 0 if anywhere(bad) else 1

    return widen


_f32, _f16, _bf16 = _widening(load_f32x16, 4), _widening(load_f16x16, 2), _widening(load_bf16x16, 2)


@entry(3)
def widen_f32(source, target, count):
    """A copy."""
    return _f32(source, target, count)


@entry(3)
def widen_f16(source, target, count):
    """float16, subnormals included."""
    return _f16(source, target, count)


@entry(3)
def widen_bf16(source, target, count):
    """The upper half of a float32."""
    return _bf16(source, target, count)


WIDEN = {"F32": widen_f32, "F16": widen_f16, "BF16": widen_bf16}
