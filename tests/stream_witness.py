"""Codes in bytes, words and tensors of ONNX as a witness: one string of binary digits, cut where the format cuts."""

import naive
import naive_layouts
import numpy as np
from layout_witness import unsigned, words

from conformance.protocol import Unsupported

PACK = {"dense": naive_layouts.stream, "aligned": naive_layouts.aligned, "planar": naive_layouts.planar}
UNPACK = {"dense": naive_layouts.unstream, "aligned": naive_layouts.unaligned, "planar": naive_layouts.unplanar}


def run(family, member, op, params, inputs):
    """pack and unpack of bits, words and tensor."""
    try:
        if family == "words":
            return _pack_words(member, params, inputs) if op == "pack" else _unpack_words(member, params, inputs)
        if family == "tensor":
            return _pack_tensor(params, inputs) if op == "pack" else _unpack_tensor(params, inputs)
        return _pack(member, params, inputs) if op == "pack" else _unpack(member, params, inputs)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as why:
        raise Unsupported(f"refusals: {why}") from why


def _pack(member, params, inputs):
    codes, width = inputs["codes"], params["bits"]
    fits = codes.dtype.kind in "iu" and width in range(1, 9) and codes.ndim
    if not fits or any(not -(1 << (width - 1)) <= code < 1 << width for code in codes.ravel().tolist()):
        raise Unsupported("refusals")
    packed = [naive.pack(row, width, member) for row in np.atleast_2d(codes).tolist()]
    return {"bytes": np.frombuffer(b"".join(packed), np.uint8).reshape(*codes.shape[:-1], -1)}


def _unpack(member, params, inputs):
    width, count = params["bits"], params["count"]
    rows = []
    for row in np.atleast_2d(inputs["bytes"]).tolist():
        digits = "".join(format(byte, "08b")[:: -1 if member == "low" else 1] for byte in row)
        parts = [digits[i * width : (i + 1) * width] for i in range(count)]
        codes = [int(part[::-1] if member == "low" else part, 2) for part in parts]
        rows.append([code - (1 << width) * (code >> (width - 1)) for code in codes] if params.get("signed") else codes)
    shape = (*inputs["bytes"].shape[:-1], count)
    return {"codes": np.array(rows, np.int8 if params.get("signed") else np.uint8).reshape(shape)}


def _pack_words(member, params, inputs):
    codes = inputs["codes"]
    rows = codes.reshape(-1, codes.shape[-1]).tolist()
    if any(code >> params["bits"] for row in rows for code in row) or (member == "planar" and codes.shape[-1] % 32):
        raise Unsupported("refusals")
    packed = PACK[member](rows, params["bits"])
    return {"words": words(packed).reshape(*codes.shape[:-1], len(packed[0]))}


def _unpack_words(member, params, inputs):
    given, count = inputs["words"], params["count"]
    rows = unsigned(np.ascontiguousarray(given).reshape(-1, given.shape[-1]))
    codes = UNPACK[member](rows, params["bits"], count)
    return {"codes": np.array(codes, np.uint8).reshape(*given.shape[:-1], count)}


def _pack_tensor(params, inputs):
    width = params.get("bits", 4)
    codes = inputs["codes"].ravel().tolist()
    if any(not -(1 << (width - 1)) <= code < 1 << width for code in codes):
        raise Unsupported("refusals")
    return {"bytes": np.frombuffer(naive.pack(codes, width, "low"), np.uint8)}


def _unpack_tensor(params, inputs):
    shape = params["shape"]
    flat = {"bytes": inputs["bytes"].reshape(-1)}
    said = {"bits": params.get("bits", 4), "count": int(np.prod(shape)), "signed": params.get("signed", False)}
    return {"codes": _unpack("low", said, flat)["codes"].reshape(shape)}
