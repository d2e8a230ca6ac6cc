"""Files with integer codes in bytes, written and read once more: ModelOpt, ONNX, HQQ, quanto, DeepSpeed, torchao, ggml.

The layouts are those of the sources that refquant/layouts names.
"""

import naive_layouts as naive
import numpy as np
from checkpoint_numbers import flat, floats, groups_of, made, nibbles, stored, values_of, zeros
from layout_witness import unsigned, words

from conformance.protocol import Unsupported


def write_int(w, dtype=None):
    """compressed-tensors in bytes."""
    half, points = 2 ** (w.bits - 1), zeros(w)
    arrays = {
        "weight": np.array([[q - half for q in row] for row in w.codes], np.int8),
        "weight_scale": stored(w.scale, dtype or w.dtype),
    }
    if any(z != half for z in flat(points)):
        arrays["weight_zero_point"] = np.array([[z - half for z in row] for row in points], np.int8)
    return arrays


def read_int(arrays, bits=8):
    """The same, back."""
    half, (outs, ins) = 2 ** (bits - 1), arrays["weight"].shape
    spread = lambda array: np.broadcast_to(array.reshape(1, 1), (outs, 1)) if array.size == 1 else array
    scale, dtype = floats(spread(arrays["weight_scale"]))
    points = [[half] * len(row) for row in scale]
    if "weight_zero_point" in arrays:
        points = [[z + half for z in row] for row in spread(arrays["weight_zero_point"]).tolist()]
    codes = [[q + half for q in row] for row in arrays["weight"].tolist()]
    return made(codes, scale, points, bits, groups_of(ins, len(scale[0])), dtype)


def write_modelopt(w, dtype=None):
    """ModelOpt's int4_awq."""
    if any(z != 8 for z in flat(zeros(w))):
        raise Unsupported("refusals")
    return {
        "weight": np.array(naive.output_pairs(w.codes), np.uint8),
        "weight_scale": stored(w.scale, dtype or w.dtype),
    }


def read_modelopt(arrays, group_size=None):
    """The same, back: two's complement of four bits."""
    codes = []
    for row in arrays["weight"].view(np.uint8).tolist():
        codes += [[(byte % 16 + 8) % 16 for byte in row], [(byte // 16 + 8) % 16 for byte in row]]
    scale, dtype = floats(arrays["weight_scale"])
    points = [[8] * len(row) for row in scale]
    return made(codes, scale, points, 4, groups_of(len(codes[0]), len(scale[0]), group_size), dtype)


def write_qtensor(w):
    """ModelOpt's INT4QTensor."""
    data = [naive.high_nibble_first(row) for row in w.codes]
    return {"quantized_data": np.array(data, np.uint8), "scale": stored([[s] for s in flat(w.scale)], w.dtype)}


def read_qtensor(arrays):
    """The same, back."""
    codes = nibbles(arrays["quantized_data"].tolist(), True)
    scale, dtype = floats(arrays["scale"].reshape(len(codes), -1))
    points = [[8] * len(row) for row in scale]
    return made(codes, scale, points, 4, len(codes[0]) // len(scale[0]), dtype, divide=True)


def write_onnx(w, dtype=None):
    """MatMulNBits: blocks padded with what decodes to zero."""
    dtype, outs = dtype or w.dtype, len(w.codes)
    fractions = not w.whole and any(z != int(z) for z in flat(w.zero)) and w.offset is None
    points = w.zero if fractions else zeros(w)
    count = len(points[0]) * w.size
    fill = lambda row: 0 if fractions else row[-1]
    codes = [row + [fill(zero)] * (count - len(row)) for row, zero in zip(w.codes, points)]
    arrays = {
        "B": np.array(naive.stream(codes, w.bits, 8), np.uint8).reshape(outs, len(points[0]), -1),
        "scales": stored([flat(w.scale)], dtype)[0],
    }
    if fractions:
        arrays["zero_points"] = stored([flat(points)], dtype)[0]
    elif any(z != 2 ** (w.bits - 1) for z in flat(points)):
        arrays["zero_points"] = np.array(flat(naive.stream(points, w.bits, 8)), np.uint8)
    return arrays


def read_onnx(arrays, bits=4, ins=None):
    """The same, back."""
    outs, blocks, width = arrays["B"].shape
    size = width * 8 // bits
    ins = ins or blocks * size
    scale, dtype = floats(arrays["scales"].reshape(outs, blocks))
    points, is_whole = [[2 ** (bits - 1)] * blocks] * outs, True
    if "zero_points" in arrays and arrays["zero_points"].dtype == np.uint8:
        points = naive.unstream(arrays["zero_points"].reshape(outs, -1).tolist(), bits, blocks, 8)
    elif "zero_points" in arrays:
        points, is_whole = floats(arrays["zero_points"].reshape(outs, blocks))[0], False
    codes = naive.unstream(arrays["B"].reshape(outs, -1).tolist(), bits, ins, 8)
    return made(codes, scale, points, bits, size, dtype, whole=is_whole)


def write_hqq(w):
    """A row or a column of the grouped matrix for each group, in slabs."""
    points = zeros(w) if w.offset is not None else w.zero
    rows = flat([[row[i : i + w.size] for i in range(0, len(row), w.size)] for row in w.codes])
    down = w.shape is not None
    data = naive.slabs(naive.transposed(rows) if down else rows, w.bits, True)
    shape = (1, -1) if down else (-1, 1)
    return {
        "W_q": words(data, np.int32 if w.bits == 3 else np.uint8),
        "scale": stored([flat(w.scale)], w.dtype).reshape(shape),
        "zero": stored([flat(points)], w.dtype).reshape(shape),
        "shape": np.array(w.shape or (len(w.codes), len(w.codes[0])), np.int64),
        "nbits": np.int32(w.bits),
        "group_size": np.int32(w.size),
        "axis": np.int32(0 if down else 1),
    }


def read_hqq(arrays):
    """The same, back."""
    (outs, ins), size, bits = arrays["shape"].tolist(), int(arrays["group_size"].item()), int(arrays["nbits"].item())
    down, count = int(arrays["axis"].item()) == 0, outs * ins // size
    rows = naive.unslabs(unsigned(arrays["W_q"]), bits, size if down else count, True)
    (scale, dtype), (points, _) = (floats(arrays[name].reshape(-1, 1)) for name in ("scale", "zero"))
    if down:
        return made(naive.transposed(rows), scale, points, bits, size, dtype, shape=(outs, ins), whole=False)
    of_row = ins // size
    across = lambda values, n: [flat(values[i : i + n]) for i in range(0, len(values), n)]
    return made(across(rows, of_row), across(scale, of_row), across(points, of_row), bits, size, dtype, whole=False)


def write_quanto(w):
    """qint2 and qint4 in slabs of groups, qint8 by rows."""
    if w.bits == 8:
        if len(w.scale[0]) > 1 or any(z != 128 for z in flat(zeros(w))):
            raise Unsupported("refusals")
        codes = [[q - 128 for q in row] for row in w.codes]
        return {"weight._data": np.array(codes, np.int8), "weight._scale": stored(w.scale, w.dtype)}
    if w.offset is not None and not any(flat(w.zero)):
        shift = stored([[0.0 - m] for m in flat(w.offset)], w.dtype)
    else:
        shift = np.array([[z] for z in flat(zeros(w))], np.int8)
    rows = flat([[row[i : i + w.size] for i in range(0, len(row), w.size)] for row in w.codes])
    return {
        "weight._data": np.array(naive.slabs(rows, w.bits, False), np.uint8),
        "weight._scale": stored([[s] for s in flat(w.scale)], w.dtype),
        "weight._shift": shift,
    }


def read_quanto(arrays, shape=None, bits=None):
    """The same, back."""
    data, (scale, dtype) = arrays["weight._data"], floats(arrays["weight._scale"])
    if data.dtype == np.int8:
        codes = [[q + 128 for q in row] for row in data.tolist()]
        return made(codes, scale, [[128]] * len(codes), 8, data.shape[1], dtype)
    (outs, ins), size = shape, data.shape[1]
    bits = bits or min(b for b in (2, 4) if len(data) == -(-len(scale) // (8 // b)))
    rows = naive.unslabs(data.tolist(), bits, len(scale), False)
    of_row = ins // size
    across = lambda values: [flat(values[i : i + of_row]) for i in range(0, len(values), of_row)]
    shift, kind = arrays["weight._shift"], arrays["weight._shift"].dtype
    if kind == np.int8:
        return made(across(rows), across(scale), across(shift.tolist()), bits, size, dtype)
    offset = [[0.0 - m for m in row] for row in across(floats(shift)[0])]
    return made(across(rows), across(scale), [[0] * of_row] * outs, bits, size, dtype, offset)


def write_deepspeed(w):
    """q / scale + min."""
    if not w.divide or w.offset is None or any(flat(w.zero)):
        raise Unsupported("refusals")
    data = [naive.high_nibble_first(row) for row in w.codes] if w.bits == 4 else w.codes
    parts = {"quant_scale": w.scale, "quant_min": w.offset}
    return {"weight": np.array(data, np.uint8)} | {k: stored(v, w.dtype)[..., None] for k, v in parts.items()}


def read_deepspeed(arrays, bits=4, group_size=None):
    """The same, back."""
    codes = arrays["weight"].tolist() if bits == 8 else nibbles(arrays["weight"].tolist(), True)
    (scale, dtype), (offset, _) = (floats(arrays[name][..., 0]) for name in ("quant_scale", "quant_min"))
    points = [[0] * len(row) for row in scale]
    size = groups_of(len(codes[0]), len(scale[0]), group_size)
    return made(codes, scale, points, bits, size, dtype, offset, divide=True)


def write_torchao(w):
    """Two's complement of four bits, and the value of 0."""
    data = [[(a + 8) % 16 + (b + 8) % 16 * 16 for a, b in zip(row[::2], row[1::2])] for row in w.codes]
    return {
        "_weight_qdata": np.array(data, np.uint8).view(np.int8),
        "_weight_scale": stored(naive.transposed(w.scale), w.dtype),
        "_weight_zero_point": stored(naive.transposed(values_of(w, 8)), w.dtype),
    }


def read_torchao(arrays, group_size=None):
    """The same, back."""
    codes = nibbles(arrays["_weight_qdata"].view(np.uint8).tolist(), False)
    codes = [[(q + 8) % 16 for q in row] for row in codes]
    (scale, dtype), (offset, _) = (floats(arrays[f"_weight_{name}"].T) for name in ("scale", "zero_point"))
    points = [[8] * len(row) for row in scale]
    return made(codes, scale, points, 4, groups_of(len(codes[0]), len(scale[0]), group_size), dtype, offset)


def write_ggml(name):
    """Blocks of 32: d, m, the fifth bits, the nibbles."""
    bits, has_minimum = {"Q8_0": 8}.get(name, int(name[1])), name.endswith("_1")

    def write(w):
        points = None if has_minimum else zeros(w)
        if points and any(z != 2 ** (bits - 1) for z in flat(points)):
            raise Unsupported("refusals")
        minima, rows = values_of(w, 0), []
        for o, codes in enumerate(w.codes):
            row = b""
            for at in range(0, len(codes), 32):
                block, group = codes[at : at + 32], at // w.size
                row += np.float16(w.scale[o][group]).tobytes()
                row += np.float16(float(minima[o][group])).tobytes() if has_minimum else b""
                row += bytes((q - 128) % 256 for q in block) if bits == 8 else bytes(naive.ggml_block(block, bits))
            rows.append(list(row))
        return {"weight": np.array(rows, np.uint8)}

    return write


def read_ggml(name):
    """The same, back."""
    bits, has_minimum = {"Q8_0": 8}.get(name, int(name[1])), name.endswith("_1")
    begin = 4 if has_minimum else 2
    length = begin + {4: 16, 5: 20, 8: 32}[bits]

    def read(arrays):
        codes, scale, offset = [], [], []
        for row in arrays["weight"]:
            blocks = [row[at : at + length] for at in range(0, len(row), length)]
            halves = [block[:begin].copy().view("<f2").tolist() for block in blocks]
            scale.append([each[0] for each in halves])
            offset.append([each[-1] for each in halves])
            codes.append(flat(ungrouped(block[begin:].tolist(), bits) for block in blocks))
        points = [[0 if has_minimum else 2 ** (bits - 1)] * len(line) for line in scale]
        return made(codes, scale, points, bits, 32, "float16", offset if has_minimum else None)

    return read


def ungrouped(data, bits):
    """The 32 codes of a block."""
    if bits == 8:
        return [(byte + 128) % 256 for byte in data]
    low = data[-16:]
    codes = [byte % 16 for byte in low] + [byte // 16 for byte in low]
    fifth = int.from_bytes(bytes(data[:4]), "little") if bits == 5 else 0
    return [q + 16 * (fifth >> i & 1) for i, q in enumerate(codes)]


GGML = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
WRITE = {f"gguf-{name}": write_ggml(name) for name in GGML} | {
    "int-quantized": write_int,
    "modelopt-int4": write_modelopt,
    "modelopt-qtensor": write_qtensor,
    "onnx-matmulnbits": write_onnx,
    "hqq": write_hqq,
    "quanto": write_quanto,
    "deepspeed": write_deepspeed,
    "torchao-int4": write_torchao,
}
READ = {f"gguf-{name}": read_ggml(name) for name in GGML} | {
    "int-quantized": read_int,
    "modelopt-int4": read_modelopt,
    "modelopt-qtensor": read_qtensor,
    "onnx-matmulnbits": read_onnx,
    "hqq": read_hqq,
    "quanto": read_quanto,
    "deepspeed": read_deepspeed,
    "torchao-int4": read_torchao,
}
