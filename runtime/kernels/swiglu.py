"""SwiGLU and the forms of its result: h = silu(gate) * up, silu(g) = g / (1 + exp(-g)).

A unit is 256 columns of a token: unit = token * ceil(width / 256) + part. A biased gate or up has its bias added first.

Record   buffers 0 gate, 1 up, 2 h, 3 bias of gate, 4 bias of up, 5..8 codes e sums halves of Q8_0, 9..13 these and
         raised codes of Q8_K, 14 BF16; integers 32 width, 33 stride of gate and up in bytes, 34 forms, 35 biased (1
         gate, 2 up)
Source   Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.activations import BF16, Q8_0, Q8_K, encode_q8_0, encode_q8_k
from runtime.kernels.bf16 import encode_bf16
from runtime.kernels.exponential import exp, exp_numpy
from runtime.simd import buffer, integer, load_f32x16, splat_f32, store_f32x16


@inlined
def encode_forms(args, at, count):
    """The forms that integer 34 asks for, of `count` values of h from number `at` on: at most 256, from a block on."""
    h, forms = buffer(args, 2), integer(args, 34)
    if forms & Q8_0:
        e, sums, halves = buffer(args, 6), buffer(args, 7), buffer(args, 8)
        encode_q8_0(h, at * 4, count, buffer(args, 5), at, e, sums, halves, at // 32)
    if forms & Q8_K:
        e, sums, halves, raised = buffer(args, 10), buffer(args, 11), buffer(args, 12), buffer(args, 13)
        encode_q8_k(h, at * 4, count, buffer(args, 9), at, e, sums, halves, raised, at // 32)
    if forms & BF16:
        encode_bf16(h, at * 4, count, buffer(args, 14), at * 2)


@kernel
def swiglu(args, tokens, start, thread, lo, hi):
    """h and its forms."""
    gate, up, h, gate_bias, up_bias = (
        buffer(args, 0),
        buffer(args, 1),
        buffer(args, 2),
        buffer(args, 3),
        buffer(args, 4),
    )
    width, stride, biased = integer(args, 32), integer(args, 33), integer(args, 35)
    parts = (width + 255) // 256
    for unit in range(lo, hi):
        t, first = unit // parts, unit % parts * 256
        count = min(256, width - first)
        at, to = t * stride + first * 4, (t * width + first) * 4
        for i in range(0, count * 4, 64):
            g, u = load_f32x16(gate, at + i), load_f32x16(up, at + i)
            if biased & 1:
                g += load_f32x16(gate_bias, first * 4 + i)
            if biased & 2:
                u += load_f32x16(up_bias, first * 4 + i)
            minus = splat_f32(np.float32(0)) - g
            store_f32x16(h, to + i, g / (exp(minus) + np.float32(1)) * u)
        encode_forms(args, t * width + first, count)


@kernel
def encode(args, tokens, start, thread, lo, hi):
    """The forms of h as it is; units and record as in swiglu, of which 2 and 5.. are read."""
    width = integer(args, 32)
    parts = (width + 255) // 256
    for unit in range(lo, hi):
        t, first = unit // parts, unit % parts * 256
        encode_forms(args, t * width + first, min(256, width - first))


def swiglu_numpy(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The twin of the product."""
    return gate / (exp_numpy(np.float32(0) - gate) + np.float32(1)) * up
