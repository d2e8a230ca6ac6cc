"""Files with integer codes in 32-bit words, written and read once more: GPTQ, AWQ, compressed-tensors, MLX.

Codes are moved by tests/naive_layouts.py, a bit at a time. The layouts are those of the sources that refquant/layouts
names.
"""

import math

import naive_layouts as naive
import numpy as np
from checkpoint_numbers import flat, floats, groups_of, made, stored, values_of, zeros
from layout_witness import unsigned, words

from conformance.protocol import Unsupported


def write_gptq(version):
    """Codes down the inputs, zero points along the outputs."""

    def write(w, carry="field", dtype="float16"):
        points = zeros(w)
        qweight, qzeros = naive.gptq(w.codes, points, w.bits, version)
        if version == "gptq" and carry == "word" and w.bits in (2, 4, 8):
            qzeros = naive.gptq_v1_words(points, w.bits)
        order = w.order or [i // w.size for i in range(len(w.codes[0]))]
        return {
            "qweight": words(qweight),
            "qzeros": words(qzeros),
            "scales": stored(naive.transposed(w.scale), dtype),
            "g_idx": np.array(order, np.int32),
        }

    return write


def read_gptq(version):
    """The same, back."""

    def read(arrays, bits=None, group_size=None, carry="field"):
        scale, dtype = floats(arrays["scales"])
        rows, groups, outs = unsigned(arrays["qzeros"]), len(scale), len(scale[0])
        fitting = [b for b in range(1, 9) if -(-outs * b // 32) == len(rows[0])]
        exact = [b for b in fitting if b * outs == 32 * len(rows[0])]
        bits = bits or (exact or fitting)[0]
        ins = 32 * len(arrays["qweight"]) // bits
        unpack = naive.unplanar if version == "gptq_p" else naive.unstream
        if version == "gptq" and carry == "word" and bits in (2, 4, 8):
            ones = sum(1 << at for at in range(0, 32, bits))
            rows = [[(word + ones) % 2**32 for word in row] for row in rows]
        points = unpack(rows, bits, outs)
        if version == "gptq" and not (carry == "word" and bits in (2, 4, 8)):
            points = [[z + 1 if carry == "plain" else (z + 1) % 2**bits for z in row] for row in points]
        order = arrays["g_idx"].tolist() if "g_idx" in arrays else None
        if order and not group_size and order == sorted(order):
            group_size = order.count(order[0])
        size = groups_of(ins, groups, group_size)
        if order == [i // size for i in range(ins)]:
            order = None
        codes = unpack(naive.transposed(unsigned(arrays["qweight"])), bits, ins)
        return made(codes, naive.transposed(scale), naive.transposed(points), bits, size, dtype, order=order)

    return read


def write_gemm(w, dtype="float16"):
    """AutoAWQ's GEMM."""
    qweight, qzeros = naive.awq_gemm(w.codes, zeros(w))
    return {"qweight": words(qweight), "qzeros": words(qzeros), "scales": stored(naive.transposed(w.scale), dtype)}


def read_gemm(arrays, group_size=None):
    """The same, back."""
    scale, dtype = floats(arrays["scales"])
    codes = naive.un_awq_gemm(unsigned(arrays["qweight"]), len(scale[0]))
    points = naive.un_awq_gemm(unsigned(arrays["qzeros"]), len(scale[0]))
    size = groups_of(len(codes[0]), len(scale), group_size)
    return made(codes, naive.transposed(scale), points, 4, size, dtype)


def padded(rows, ins, size, nothing=0):
    """As many columns as AutoAWQ allots: whole words of 8, two or four of them for small groups."""
    least = 4 if size == 32 else 2 if size == 64 else 1
    count = math.ceil(ins // size / 8 / least) * least * 8
    return [row + [nothing] * (count - len(row)) for row in rows]


def write_gemv(w, dtype="float16"):
    """AutoAWQ's GEMV."""
    ins = len(w.codes[0])
    return {
        "qweight": words(naive.stream(w.codes, 4)),
        "qzeros": words(naive.stream(padded(zeros(w), ins, w.size), 4)),
        "scales": stored(padded(w.scale, ins, w.size), dtype),
    }


def used(scale, ins, group_size):
    """(group size, groups): columns that are not all zeros count."""
    count = max((j + 1 for row in scale for j, s in enumerate(row) if s), default=0)
    size = group_size or ins // count
    return size, ins // size


def read_gemv(arrays, group_size=None):
    """The same, back."""
    scale, dtype = floats(arrays["scales"])
    ins = 8 * arrays["qweight"].shape[1]
    size, groups = used(scale, ins, group_size)
    points = naive.unstream(unsigned(arrays["qzeros"]), 4, groups)
    codes = naive.unstream(unsigned(arrays["qweight"]), 4, ins)
    return made(codes, [row[:groups] for row in scale], points, 4, size, dtype)


def write_fast(w):
    """AutoAWQ's GEMVFast: minima in place of zero points."""
    ins = len(w.codes[0])
    minima, scale = (naive.transposed(padded(rows, ins, w.size)) for rows in (values_of(w, 0), w.scale))
    qweight = words(naive.awq_gemv_fast(w.codes), np.int16)
    return {"qweight": qweight, "qzeros": stored(minima, "float16"), "scales": stored(scale, "float16")}


def read_fast(arrays, group_size=None):
    """The same, back: where each nibble came from is asked of the writer."""
    outs, ins = 4 * len(arrays["qweight"]), arrays["qweight"].shape[1]
    stored_words = unsigned(arrays["qweight"])
    codes = naive.empty(outs, ins)
    for o in range(outs):
        for i in range(ins):
            block, half, row, pair, odd = i // 64, i % 64 // 32, i % 32 // 8, i % 8 // 2, i % 2
            nibble = (o % 4) * 64 + 32 * half + 8 * pair + 4 * odd + row
            codes[o][i] = stored_words[o // 4][64 * block + nibble // 4] >> 4 * (nibble % 4) & 15
    scale, dtype = floats(arrays["scales"].T)
    offset, _ = floats(arrays["qzeros"].T)
    size, groups = used(scale, ins, group_size)
    scale, offset = ([row[:groups] for row in rows] for rows in (scale, offset))
    return made(codes, scale, [[0] * groups] * outs, 4, size, dtype, offset)


def write_packed(w, dtype=None, aligned=False):
    """compressed-tensors in words."""
    pack, points = naive.aligned if aligned else naive.stream, zeros(w)
    arrays = {
        "weight_packed": words(pack(w.codes, w.bits)),
        "weight_scale": stored(w.scale, dtype or w.dtype),
        "weight_shape": np.array([len(w.codes), len(w.codes[0])], np.int64),
    }
    if any(z != 2 ** (w.bits - 1) for z in flat(points)):
        arrays["weight_zero_point"] = words(naive.transposed(pack(naive.transposed(points), w.bits)))
    if w.order is not None:
        arrays["weight_g_idx"] = np.array(w.order, np.int32)
    return arrays


def read_packed(arrays, bits=None, group_size=None):
    """The same, back; dense where the width allows it."""
    outs, ins = arrays["weight_shape"].tolist()
    width = arrays["weight_packed"].shape[1]
    dense = [(b, naive.unstream) for b in range(1, 9) if -(-ins * b // 32) == width]
    aligned = [(b, naive.unaligned) for b in (3, 5, 6, 7) if -(-ins // (32 // b)) == width]
    fitting = [each for each in dense + aligned if bits in (None, each[0])]
    if not fitting or (bits is None and len(dense) != 1 and len(fitting) != 1):
        raise Unsupported("refusals")
    bits, unpack = fitting[0]
    scale, dtype = floats(arrays["weight_scale"])
    points = [[2 ** (bits - 1)] * len(row) for row in scale]
    if "weight_zero_point" in arrays:
        columns = naive.transposed(unsigned(arrays["weight_zero_point"]))
        points = naive.transposed(unpack(columns, bits, outs))
    size = groups_of(ins, len(scale[0]), group_size)
    order = arrays["weight_g_idx"].tolist() if "weight_g_idx" in arrays else None
    if order == [i // size for i in range(ins)]:
        order = None
    return made(unpack(unsigned(arrays["weight_packed"]), bits, ins), scale, points, bits, size, dtype, order=order)


def write_mlx(w, dtype=None):
    """Scales and biases."""
    return {
        "weight": np.array(naive.stream(w.codes, w.bits), np.uint32),
        "scales": stored(w.scale, dtype or w.dtype),
        "biases": stored(values_of(w, 0), dtype or w.dtype),
    }


def read_mlx(arrays, bits=None, group_size=None):
    """The same, back; MLX has some widths and sizes of groups only."""
    scale, dtype = floats(arrays["scales"])
    width, groups = arrays["weight"].shape[1], len(scale[0])
    tries = [(b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128) if b * g * groups == 32 * width]
    tries = [(b, g) for b, g in tries if bits in (None, b) and group_size in (None, g)]
    if len(tries) != 1:
        raise Unsupported("refusals")
    bits, size = tries[0]
    codes = naive.unstream(unsigned(arrays["weight"]), bits, size * groups)
    return made(codes, scale, [[0] * groups] * len(scale), bits, size, dtype, floats(arrays["biases"])[0])


GPTQ = ("gptq", "gptq_v2", "gptq_p")
WRITE = {name: write_gptq(name) for name in GPTQ} | {
    "awq-gemm": write_gemm,
    "awq-gemv": write_gemv,
    "awq-gemv_fast": write_fast,
    "pack-quantized": write_packed,
    "mlx": write_mlx,
}
READ = {name: read_gptq(name) for name in GPTQ} | {
    "awq-gemm": read_gemm,
    "awq-gemv": read_gemv,
    "awq-gemv_fast": read_fast,
    "pack-quantized": read_packed,
    "mlx": read_mlx,
}
