"""Files of small floats and of bitsandbytes once more: codes by plain integers, values in float32, a step at a time."""

import json
from fractions import Fraction

import naive_floats
import naive_layouts as naive
import numpy as np
from checkpoint_numbers import flat, floats, nibbles, stored

from conformance.protocol import Unsupported

f32 = np.float32
BITS = {"e2m1": 4, "e2m3": 6, "e3m2": 6, "e4m3fn": 8, "e5m2": 8}
STATE = "weight.quant_state.bitsandbytes__"


def spelled(text):
    """A word as its bytes."""
    return np.frombuffer(text.encode(), np.uint8)


def value(code, element):
    """The number of a bit pattern, infinities and NaN among them."""
    if element == "e8m0":
        return f32(np.nan) if code == 255 else f32(float(Fraction(2) ** (code - 127)))
    half = 1 << sum(naive_floats.FORMATS[element][:2])
    finite, size = naive_floats.magnitudes(element), code % half
    beyond = np.inf if element == "e5m2" and size == len(finite) else np.nan
    number = float(finite[size]) if size < len(finite) else beyond
    return f32(-number if code >= half else number)


def told(codes, element, scale, scale_dtype, block, tensor=None, divide=False):
    """Every field by its name."""
    kind = np.uint8 if scale_dtype in ("e8m0", "e4m3fn") else np.float32
    found = {
        "codes": np.array(codes, np.uint8),
        "element": spelled(element),
        "scale": np.array(scale, kind),
        "scale_dtype": spelled(scale_dtype),
        "block": np.array(block, np.int64),
        "tensor_scale": None if tensor is None else f32(tensor),
        "divide": np.int64(divide),
    }
    return {name: each for name, each in found.items() if each is not None}


def decoded(found):
    """ELEMENT[code] times the scale of its block."""
    element, kind = (bytes(found[name]).decode() for name in ("element", "scale_dtype"))
    rows, columns = found["block"].tolist()
    out = np.zeros(found["codes"].shape, np.float32)
    with np.errstate(all="ignore"):
        for (i, j), code in np.ndenumerate(found["codes"]):
            s = found["scale"][i // rows, j // columns]
            s = value(int(s), kind) if found["scale"].dtype == np.uint8 else s
            if "tensor_scale" in found:
                s = s / found["tensor_scale"] if found["divide"] else s * found["tensor_scale"]
            out[i, j] = value(int(code), element) * s
    return out


def tensor_scale(params, inputs, divides):
    """One number; that of the other custom is its reciprocal."""
    if "tensor_scale" not in inputs:
        return f32(1)
    given = f32(inputs["tensor_scale"].item())
    return given if bool(params.get("divide")) == divides else f32(1) / given


def write(member, params, inputs):
    """codes, scale -> the arrays of the layout."""
    codes, scale, element = inputs["codes"].tolist(), inputs["scale"], params["element"]
    if member == "mxfp8-quantized":
        return {"weight": inputs["codes"], "weight_scale": scale}
    if member == "float-quantized":
        made = stored(scale.tolist(), params["scale_dtype"])
        return {"weight": inputs["codes"], "weight_scale": made.reshape(1) if made.size == 1 else made}
    if member == "gguf-MXFP4":
        return {"weight": np.array([of_ggml(row, line, 32) for row, line in zip(codes, scale.tolist())], np.uint8)}
    if member == "gguf-NVFP4":
        rows = [of_ggml(row, line, 16) for row, line in zip(codes, scale.tolist())]
        return {"weight": np.array(rows, np.uint8), "scale": tensor_scale(params, inputs, False).reshape(1)}
    packed = np.array(naive.stream(codes, BITS[element], 8), np.uint8)
    if member == "modelopt-nvfp4":
        return {"weight": packed, "weight_scale": scale, "weight_scale_2": tensor_scale(params, inputs, False)}
    found = {"weight_packed": packed, "weight_scale": scale}
    if member == "nvfp4-pack-quantized":
        found["weight_global_scale"] = tensor_scale(params, inputs, True).reshape(1)
    return found


def of_ggml(codes, scales, size):
    """Bytes of a row: scale bytes, then a block's first half in the low nibbles of its bytes."""
    count, row = 1 if size == 32 else 4, []
    for first in range(0, len(scales), count):
        row += scales[first : first + count]
        for block in range(first, first + count):
            mine = codes[block * size : (block + 1) * size]
            row += [low + 16 * high for low, high in zip(mine[: size // 2], mine[size // 2 :])]
    return row


def from_ggml(row, size):
    """(codes, scales) of a row."""
    count, codes, scales = 1 if size == 32 else 4, [], []
    for at in range(0, len(row), count + count * size // 2):
        scales += row[at : at + count]
        for block in range(count):
            begin = at + count + block * size // 2
            mine = row[begin : begin + size // 2]
            codes += [byte % 16 for byte in mine] + [byte // 16 for byte in mine]
    return codes, scales


def read(member, params, inputs):
    """The arrays of the layout -> fields."""
    if member.startswith("gguf"):
        size = 32 if member == "gguf-MXFP4" else 16
        codes, scales = zip(*(from_ggml(row, size) for row in inputs["weight"].tolist()))
        if any(s == 255 if size == 32 else s >= 127 for s in flat(scales)):
            raise Unsupported("refusals")
        tensor = None if size == 32 else inputs["scale"][0] if "scale" in inputs else 1
        return told(codes, "e2m1", scales, "e8m0" if size == 32 else "e4m3fn", (1, size), tensor)
    if member == "float-quantized":
        return read_fp8(inputs, params.get("block", (128, 128)))
    scale = inputs["weight_scale"].view(np.uint8)
    if member == "mxfp8-quantized":
        return told(inputs["weight"], "e4m3fn", scale, "e8m0", (1, 32))
    if member == "mxfp6":
        data = inputs["weight_packed"]
        codes = naive.unstream(data.tolist(), 6, 8 * data.shape[1] // 6, 8)
        return told(codes, params.get("element", "e2m3"), scale, "e8m0", (1, 32))
    codes = nibbles(inputs["weight" if member == "modelopt-nvfp4" else "weight_packed"].tolist(), False)
    if member == "mxfp4-pack-quantized":
        return told(codes, "e2m1", scale, "e8m0", (1, 32))
    divides = member == "nvfp4-pack-quantized"
    tensor = inputs["weight_global_scale" if divides else "weight_scale_2"].item()
    return told(codes, "e2m1", scale, "e4m3fn", (1, 16), tensor, divides)


def read_fp8(inputs, block):
    """One scale, one for each output, or one for each tile."""
    values, dtype = floats(inputs["weight_scale"])
    scale, (outs, ins) = np.array(values, np.float32), inputs["weight"].shape
    if scale.size == 1:
        return told(inputs["weight"], "e4m3fn", scale.reshape(1, 1), dtype, (outs, ins))
    if scale.shape in ((outs, 1), (outs,)):
        return told(inputs["weight"], "e4m3fn", scale.reshape(outs, 1), dtype, (1, ins))
    return told(inputs["weight"], "e4m3fn", scale, dtype, block)


def write_four(kind, params, inputs):
    """bitsandbytes NF4 and FP4: QuantState.as_dict(packed=True) of its functional.py."""
    codes = inputs["codes"].tolist()
    codes += [7 if kind == "nf4" else 0] * (len(codes) % 2)
    state = {
        "quant_type": kind,
        "blocksize": params["blocksize"],
        "dtype": params.get("dtype", "float32"),
        "shape": params["shape"],
    }
    found = {"weight": np.array([[byte] for byte in naive.high_nibble_first(codes)], np.uint8)}
    found["weight.quant_map"] = inputs["quant_map"]
    if "nested_codes" in inputs:
        found["weight.absmax"] = inputs["nested_codes"]
        found |= {f"weight.nested_{name}": inputs[f"nested_{name}"] for name in ("absmax", "quant_map")}
        state["nested_blocksize"] = params.get("nested_blocksize", 256)
        state |= {"nested_dtype": "float32", "nested_offset": params["nested_offset"]}
    else:
        found["weight.absmax"] = inputs["absmax"]
    return found | {STATE + kind: spelled(json.dumps(state))}


def read_four(kind, params, inputs):
    """The same, back."""
    state = json.loads(bytes(inputs[STATE + kind]))
    count = int(np.prod(state["shape"]))
    codes = nibbles([inputs["weight"].reshape(-1).view(np.uint8).tolist()], True)[0][:count]
    found = {"codes": np.array(codes, np.uint8)}
    if "nested_offset" in state:
        found["nested_codes"] = inputs["weight.absmax"]
        found |= {f"nested_{name}": inputs[f"weight.nested_{name}"] for name in ("absmax", "quant_map")}
        found["nested_offset"] = np.array(state["nested_offset"])
        found["nested_blocksize"] = np.int64(state.get("nested_blocksize", 256))
    else:
        found["absmax"] = inputs["weight.absmax"]
    return found | {
        "quant_map": inputs["weight.quant_map"],
        "quant_type": spelled(kind),
        "blocksize": np.int64(state["blocksize"]),
        "shape": np.array(state["shape"], np.int64),
        "dtype": spelled(state.get("dtype", "float32")),
    }


def decoded_four(found):
    """quant_map[code] times the largest magnitude of its block, which may itself be a code."""
    out, size = [], int(found["blocksize"])
    with np.errstate(all="ignore"):
        for i, code in enumerate(found["codes"].tolist()):
            block = i // size
            if "absmax" in found:
                scale = found["absmax"][block]
            else:
                outer = found["nested_absmax"][block // int(found["nested_blocksize"])]
                scale = found["nested_quant_map"][found["nested_codes"][block]] * outer + f32(found["nested_offset"])
            out.append(found["quant_map"][code] * scale)
    return np.array(out, np.float32).reshape(found["shape"])


def decoded_rows(found):
    """codes, absmax: two products, of which one is with the float32 next to 1 / 127."""
    rows = zip(found["codes"].tolist(), found["absmax"])
    with np.errstate(all="ignore"):
        return np.array([[f32(q) * scale * f32(1 / 127) for q in row] for row, scale in rows], np.float32)


def run(member, op, params, inputs):
    """write, read and weight."""
    if member == "bitsandbytes-int8":
        if op == "write":
            return {"weight": inputs["codes"], "SCB": inputs["absmax"], "weight_format": np.uint8(0)}
        found = {"codes": inputs["weight"], "absmax": inputs["SCB"]}
        return found if op == "read" else {"values": decoded_rows(found)}
    if member.startswith("bitsandbytes"):
        kind = member.removeprefix("bitsandbytes-")
        if op == "write":
            return write_four(kind, params, inputs)
        found = read_four(kind, params, inputs)
        return found if op == "read" else {"values": decoded_four(found)}
    if op == "write":
        return write(member, params, inputs)
    found = read(member, params, inputs)
    return found if op == "read" else {"values": decoded(found)}
