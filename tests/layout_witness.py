"""naive_layouts as a witness of layouts: arrays in and out, every code moved by plain integers."""

import math

import naive_layouts as naive
import numpy as np
from naive_gguf import f32

from conformance.protocol import Unsupported


def run(member, op, params, inputs):
    """pack, unpack and decode of the layouts of conformance/cases/layouts.py."""
    if op == "decode":
        return decode(member, params, inputs)
    known = PACK if op == "pack" else UNPACK
    if member not in known:
        raise Unsupported(f"layout.{member}")
    return known[member](params, inputs)


def decode(member, params, inputs):
    """(q - z) s, or q s + b, with a float32 rounding after each step; all of these are exact but the last."""
    if member == "mlx":
        scales, biases = (inputs[name].astype(np.float64).tolist() for name in ("scales", "biases"))
        size = params["group_size"]
        codes = naive.unstream(inputs["weight"].tolist(), params["bits"], size * len(scales[0]))
        parts = zip(codes, scales, biases)
        rows = [[f32(f32(q * s[i // size]) + b[i // size]) for i, q in enumerate(c)] for c, s, b in parts]
        return {"values": np.array(rows, np.float32)}
    found = run(member, "unpack", params, inputs)
    codes, scale, zero = (found[name].astype(np.float64).tolist() for name in ("codes", "scale", "zero_point"))
    size = len(codes[0]) // len(scale[0])
    rows = [[(q - z[i // size]) * s[i // size] for i, q in enumerate(c)] for c, s, z in zip(codes, scale, zero)]
    return {"values": np.array(rows, np.float32)}


def pack_mlx(params, inputs):
    """Codes along the inputs; biases are the values of code 0."""
    scale, zero = inputs["scale"].astype(np.float64), inputs["zero_point"].astype(np.float64)
    return {
        "weight": np.array(naive.stream(inputs["codes"].tolist(), params["bits"]), np.uint32),
        "scales": scale.astype(np.float16),
        "biases": (-scale * zero).astype(np.float16),
    }


def words(rows, dtype=np.int32):
    """Rows of unsigned numbers as an array of the words of a file."""
    unsigned = np.array(rows, np.uint64).astype(f"u{np.dtype(dtype).itemsize}")
    return unsigned.view(dtype)


def unsigned(array):
    """Rows of Python integers."""
    return array.view(f"u{array.dtype.itemsize}").tolist()


def answer(codes, scale, zero):
    """What unpack gives."""
    zero = np.array(zero)
    return {
        "codes": np.array(codes, np.uint8),
        "scale": np.array(scale, np.float32),
        "zero_point": zero if zero.dtype == np.float32 else zero.astype(np.int16),
    }


def pack_gptq(version):
    """qweight, qzeros, scales, g_idx."""

    def pack(params, inputs):
        codes, zero = inputs["codes"].tolist(), inputs["zero_point"].tolist()
        qweight, qzeros = naive.gptq(codes, zero, params["bits"], version)
        order = np.array([i // params["group_size"] for i in range(len(codes[0]))], np.int32)
        scales = inputs["scale"].T.astype(np.float16)
        return {"qweight": words(qweight), "qzeros": words(qzeros), "scales": scales, "g_idx": order}

    return pack


def unpack_gptq(version):
    """Codes down the words, zero points along them."""

    def unpack(params, inputs):
        columns = naive.transposed(unsigned(inputs["qweight"]))
        codes = naive.unstream(columns, params["bits"], len(inputs["g_idx"]))
        zeros = naive.unstream(unsigned(inputs["qzeros"]), params["bits"], len(codes))
        if version == "gptq":
            zeros = [[(z + 1) % 2 ** params["bits"] for z in row] for row in zeros]
        return answer(codes, inputs["scales"].T, naive.transposed(zeros))

    return unpack


def pack_gemm(params, inputs):
    """AutoAWQ's GEMM."""
    qweight, qzeros = naive.awq_gemm(inputs["codes"].tolist(), inputs["zero_point"].tolist())
    return {"qweight": words(qweight), "qzeros": words(qzeros), "scales": inputs["scale"].T.astype(np.float16)}


def unpack_gemm(params, inputs):
    """The same, back."""
    outs = inputs["scales"].shape[1]
    zeros = naive.un_awq_gemm(unsigned(inputs["qzeros"]), outs)
    return answer(naive.un_awq_gemm(unsigned(inputs["qweight"]), outs), inputs["scales"].T, zeros)


def pack_gemv(params, inputs):
    """AutoAWQ's GEMV: padded to four words for groups of 32."""
    groups, least = inputs["scale"].shape[1], {128: 1, 64: 2, 32: 4}[params["group_size"]]
    count = math.ceil(groups / 8 / least) * least
    zeros = [row + [0] * (8 * count - groups) for row in inputs["zero_point"].tolist()]
    scales = np.array([row + [0.0] * (8 * count - groups) for row in inputs["scale"].tolist()], np.float16)
    packed = naive.stream(inputs["codes"].tolist(), 4), naive.stream(zeros, 4)
    return {"qweight": words(packed[0]), "qzeros": words(packed[1]), "scales": scales}


def unpack_gemv(params, inputs):
    """The same, back."""
    ins = 8 * inputs["qweight"].shape[1]
    groups = ins // params["group_size"]
    zeros = naive.unstream(unsigned(inputs["qzeros"]), 4, groups)
    return answer(naive.unstream(unsigned(inputs["qweight"]), 4, ins), inputs["scales"][:, :groups], zeros)


def pack_quantized(params, inputs):
    """compressed-tensors: codes along the inputs, zero points down the outputs."""
    bits, (outs, ins) = params["bits"], inputs["codes"].shape
    zeros = naive.transposed(naive.stream(naive.transposed(inputs["zero_point"].tolist()), bits))
    return {
        "weight_packed": words(naive.stream(inputs["codes"].tolist(), bits)),
        "weight_scale": inputs["scale"].astype(np.float16),
        "weight_shape": np.array([outs, ins], np.int64),
        "weight_zero_point": words(zeros),
    }


def unpack_quantized(params, inputs):
    """The same, back."""
    bits, (outs, ins) = params["bits"], inputs["weight_shape"].tolist()
    zeros = naive.unstream(naive.transposed(unsigned(inputs["weight_zero_point"])), bits, outs)
    codes = naive.unstream(unsigned(inputs["weight_packed"]), bits, ins)
    return answer(codes, inputs["weight_scale"], naive.transposed(zeros))


def pack_hqq(params, inputs):
    """Slabs of rows of one group, the first in the high bits."""
    bits, size = params["bits"], params["group_size"]
    rows = inputs["codes"].reshape(-1, size).tolist()
    return {
        "W_q": words(naive.slabs(rows, bits, True), np.int32 if bits == 3 else np.uint8),
        "scale": inputs["scale"].reshape(-1, 1).astype(np.float16),
        "zero": inputs["zero_point"].reshape(-1, 1).astype(np.float16),
        "shape": np.array(inputs["codes"].shape, np.int64),
        "nbits": np.array(bits, np.int32),
        "group_size": np.array(size, np.int32),
        "axis": np.array(1, np.int32),
    }


def unpack_hqq(params, inputs):
    """The same, back."""
    (outs, ins), size = inputs["shape"].tolist(), int(inputs["group_size"])
    rows = naive.unslabs(unsigned(inputs["W_q"]), int(inputs["nbits"]), outs * ins // size, True)
    codes = np.array(rows).reshape(outs, ins)
    return answer(codes, inputs["scale"].reshape(outs, -1), inputs["zero"].reshape(outs, -1).astype(np.float32))


def pack_quanto(params, inputs):
    """Slabs of rows of one group, the first in the low bits."""
    rows = inputs["codes"].reshape(-1, params["group_size"]).tolist()
    return {
        "weight._data": words(naive.slabs(rows, params["bits"], False), np.uint8),
        "weight._scale": inputs["scale"].reshape(-1, 1).astype(np.float16),
        "weight._shift": inputs["zero_point"].reshape(-1, 1).astype(np.int8),
    }


def unpack_quanto(params, inputs):
    """The same, back."""
    outs, ins = params["shape"]
    data, scale = inputs["weight._data"], inputs["weight._scale"]
    groups = len(scale)
    bits = 8 * len(data) // groups
    rows = naive.unslabs(unsigned(data), bits, groups, False)
    zero = inputs["weight._shift"].reshape(outs, -1)
    return answer(np.array(rows).reshape(outs, ins), scale.reshape(outs, -1), zero)


def pack_onnx(params, inputs):
    """MatMulNBits: the first code of a byte is low; zero points begin a byte for every output."""
    bits, size = params["bits"], params["group_size"]
    outs, ins = inputs["codes"].shape
    data = naive.stream(inputs["codes"].tolist(), bits, 8)
    zeros = naive.stream(inputs["zero_point"].tolist(), bits, 8)
    return {
        "B": np.array(data, np.uint8).reshape(outs, ins // size, -1),
        "scales": inputs["scale"].reshape(-1).astype(np.float16),
        "zero_points": np.array(zeros, np.uint8).reshape(-1),
    }


def unpack_onnx(params, inputs):
    """The same, back."""
    outs, blocks, _ = inputs["B"].shape
    codes = naive.unstream(inputs["B"].reshape(outs, -1).tolist(), params["bits"], params["ins"], 8)
    zeros = naive.unstream(inputs["zero_points"].reshape(outs, -1).tolist(), params["bits"], blocks, 8)
    return answer(codes, inputs["scales"].reshape(outs, blocks), zeros)


PACK = {
    "gptq": pack_gptq("gptq"),
    "gptq_v2": pack_gptq("gptq_v2"),
    "awq-gemm": pack_gemm,
    "awq-gemv": pack_gemv,
    "pack-quantized": pack_quantized,
    "hqq": pack_hqq,
    "quanto": pack_quanto,
    "onnx-matmulnbits": pack_onnx,
    "mlx": pack_mlx,
}
UNPACK = {
    "gptq": unpack_gptq("gptq"),
    "gptq_v2": unpack_gptq("gptq_v2"),
    "awq-gemm": unpack_gemm,
    "awq-gemv": unpack_gemv,
    "pack-quantized": unpack_quantized,
    "hqq": unpack_hqq,
    "quanto": unpack_quanto,
    "onnx-matmulnbits": unpack_onnx,
}
