"""Detect: which layout a weight or a file has, with the evidence in words.

    detect(arrays)       the arrays of one weight -> Detection
    detect_file(path)    safetensors, GGUF or ONNX -> {name of a layer: Detection}

Names narrow the layouts down, shapes and dtypes decide between them, and where bytes of both look alike the numbers are
asked (evidence.py): GPTQ's zero points minus one or not, planes or a stream of 3 bits, MLX's bits. Where that does not
settle it, several layouts are returned: ambiguous is an answer.
Order of nibbles    two codes of a byte nearly always share a scale, so that swapping them gives weights as likely as
    before: the bytes cannot tell low first from high first. The layout, known by its names, does. AWQ's interleaving of
    outputs is told from GPTQ's order by the shapes.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refquant import gguf
from refquant.errors import QuantError
from refquant.layouts import bitsandbytes, evidence, gptq, mlx, onnx, onnx_file, quanto, torchao, words
from refquant.layouts.arrays import FLOATS, Arrays, field
from refquant.layouts.catalogue import LAYOUTS
from refquant.layouts.layers import kind, layers


@dataclass(frozen=True, slots=True)
class Detection:
    """Layouts that fit, the likeliest first, none if unknown; options to read with; the evidence, a sentence each."""

    layouts: tuple[str, ...]
    options: dict[str, object] = dataclasses.field(default_factory=dict)
    evidence: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """Exactly one layout fits."""
        return len(self.layouts) == 1


def detect(arrays: Arrays) -> Detection:
    """The layout of the arrays of one weight, by the names that they have behind the layer's.

    Never raises for what the arrays hold: what does not fit is said in the evidence.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for names, judge in _JUDGES:
        if all(name in arrays or (name.endswith("__") and any(n.startswith(name) for n in arrays)) for name in names):
            try:
                return judge(arrays)
            except QuantError as error:
                return Detection((), {}, (f"has {' and '.join(names)}, but {error}",))
    return Detection((), {}, (f"no layout has exactly {', '.join(sorted(map(str, arrays))[:12]) or 'nothing'}",))


def detect_file(path: str | os.PathLike) -> dict[str, Detection]:
    """Detect every quantized weight of a file, by the name of its layer. Raises QuantError for a broken file.

    In a GGUF file the type of a tensor is its layout, and nothing has to be guessed.
    """
    what = kind(path)
    if what == "safetensors":
        return {name: detect(arrays) for name, arrays in layers(path).items()}
    found = {}
    if what == "onnx":
        for name, (arrays, options) in onnx_file.matmuls(path).items():
            sizes = ", ".join(f"{key} = {value}" for key, value in options.items())
            found[name] = _readable("onnx-matmulnbits", arrays, (f"a node MatMulNBits with {sizes}",), options)
        return found
    with gguf.open(path) as file:
        for name, tensor in file.tensors.items():
            if not gguf.FORMATS[tensor.type].is_scalar:
                known = (f"gguf-{tensor.type}",) if f"gguf-{tensor.type}" in LAYOUTS else (tensor.type,)
                found[name] = Detection(known, {}, (f"the header of the file says {tensor.type}",))
    return found


def _packed_words(arrays: Arrays) -> Detection:
    """qweight, qzeros, scales: GPTQ or one of the three of AWQ, by shape."""
    qweight, qzeros, scales = (arrays[name] for name in ("qweight", "qzeros", "scales"))
    if {qweight.ndim, qzeros.ndim, scales.ndim} != {2} or not qweight.size or not scales.size:
        raise QuantError("qweight, qzeros and scales are no matrices")
    shapes = f"qweight {qweight.shape}, qzeros {qzeros.shape}, scales {scales.shape}"
    if qweight.dtype == np.int16:
        said = "int16 qweight: four outputs interleaved", "qzeros are floats: -scale * zero, not codes"
        return _readable("awq-gemv_fast", arrays, (shapes, *said))
    found = []
    groups, outs = scales.shape
    if (qweight.shape[1], qzeros.shape) == (outs // 8, (groups, outs // 8)) and outs % 8 == 0:
        found.append("awq-gemm")
    if qweight.shape[0] == qzeros.shape[0] == groups and outs == 8 * qzeros.shape[1]:
        found.append("awq-gemv")
    if qweight.shape[1] == outs and len(qzeros) == groups:
        return _gptq(arrays, shapes, tuple(found))
    if len(found) != 1:
        return Detection(tuple(found), {}, (f"{shapes}: fits {' and '.join(found) or 'neither GPTQ nor AWQ'}",))
    order = "ORDER 0 2 4 6 1 3 5 7 along the outputs" if found == ["awq-gemm"] else "in order along the inputs"
    return _readable(found[0], arrays, (f"{shapes}: eight codes of 4 bits to a word, {order}",))


def _gptq(arrays: Arrays, shapes: str, others: tuple[str, ...]) -> Detection:
    stored, plus_one = gptq.unpack(arrays, "gptq_v2"), gptq.unpack(arrays, "gptq")
    bits = stored.bits
    said = [f"{shapes}: {bits} bits along the inputs, groups of {stored.group_size}"]
    if stored.g_idx is not None:
        said.append("g_idx is not i // group_size: act-order")
    options = {"bits": bits, "group_size": stored.group_size}
    if bits in (5, 6, 7):
        return Detection(("gptq_p", *others), options, (*said, f"{bits} bits exist in planes only"))
    if bits == 3 and not stored.codes.shape[0] % 32:
        planes = evidence.spread(gptq.unpack(arrays, "gptq_p"))
        stream = min(evidence.spread(stored), evidence.spread(plus_one))
        said.append(f"mean |code - zero_point| is {planes:.3f} read as planes, {stream:.3f} as a stream")
        if abs(planes - stream) < 0.1 * max(planes, stream):
            return Detection((*gptq.VERSIONS, *others), options, (*said, "too near to tell"))
        if planes < stream:
            return Detection(("gptq_p", *others), options, tuple(said))
    version, why = evidence.zero_version(plus_one, stored)
    said.append(why)
    ones = int((stored.zero_point == (1 << bits) - 1).sum())
    if ones and version != "gptq_v2":
        said.append(f"{ones} zero fields are all ones: 0, {1 << bits} or a carry, by reader (gptq.py, carry)")
    found = (version,) if version else ("gptq", "gptq_v2")
    return Detection((*found, *others), options, tuple(said))


def _weight_packed(arrays: Arrays) -> Detection:
    packed, scale = arrays["weight_packed"], arrays["weight_scale"]
    if "weight_shape" in arrays:
        kind = "asymmetric" if "weight_zero_point" in arrays else "symmetric: no weight_zero_point"
        detection = _readable("pack-quantized", arrays, (f"weight_packed with weight_shape, {kind}",))
        return detection if detection.certain else _ambiguous_width(arrays, detection)
    if "weight_global_scale" in arrays:
        return _nvfp4(arrays, "nvfp4-pack-quantized", "weight_global_scale", divides=True)
    if packed.ndim != 2 or scale.ndim != 2:
        raise QuantError("weight_packed and weight_scale are no matrices")
    width, blocks = packed.shape[1], scale.shape[1]
    ratio = f"{width} bytes for {blocks} scales of a row"
    if width == 16 * blocks:
        return _readable("mxfp4-pack-quantized", arrays, (f"{ratio}: 32 codes of 4 bits under a scale byte, E8M0",))
    if width == 24 * blocks:
        said = f"{ratio}: 32 codes of 6 bits under a scale byte", "e2m3 and e3m2 look alike"
        return _readable("mxfp6", arrays, said)
    return Detection((), {}, (f"{ratio}: neither 16 (4 bits) nor 24 (6 bits) bytes to a scale",))


def _ambiguous_width(arrays: Arrays, detection: Detection) -> Detection:
    shape = field("detect", arrays, "weight_shape", ("int64", "int32"), (2,))
    ins, width = int(shape[1]), field("detect", arrays, "weight_packed", "int32", (None, None)).shape[1]
    fitting = [b for b in range(1, 9) if words.count(ins, b) == width or words.count(ins, b, aligned=True) == width]
    found = ("pack-quantized",) if fitting else ()
    return Detection(found, {}, (*detection.evidence, f"{width} words for {ins} inputs: bits may be {fitting}"))


def _nvfp4(arrays: Arrays, name: str, tensor: str, divides: bool) -> Detection:
    record = LAYOUTS[name].unpack(arrays)
    scales = record.scales() * record.tensor_scale if divides else record.scales() / record.tensor_scale
    agrees, why = evidence.tensor_scale(float(arrays[tensor].reshape(())), divides, float(np.nanmax(scales)))
    said = ["16 codes of 4 bits under an E4M3 byte, and one float32 for the tensor", why]
    if agrees:
        return Detection((name,), {}, tuple(said))
    other = "modelopt-nvfp4" if divides else "nvfp4-pack-quantized"
    return Detection(
        (name, other), {}, (*said, f"the number is that of the other convention: {other} under a wrong name?")
    )


def _weight_and_scale(arrays: Arrays) -> Detection:
    weight, scale = arrays["weight"], arrays["weight_scale"]
    if weight.ndim != 2:
        raise QuantError(f"weight.shape = {weight.shape} is no matrix")
    if weight.dtype == np.int8:
        return _readable("int-quantized", arrays, ("int8 weight with weight_scale, one code a byte",))
    if weight.dtype.name not in ("uint8", "float8_e4m3fn"):
        raise QuantError(f"weight.dtype = {weight.dtype} is no code")
    outs = len(weight)
    if scale.dtype.itemsize == 1:
        return _readable("mxfp8-quantized", arrays, ("eight-bit weight, a scale byte for 32 inputs: E4M3 under E8M0",))
    halves = scale.ndim == 2 and len(scale) == 2 * outs
    if halves and weight.dtype == np.uint8:
        said = f"{outs} rows of bytes for {2 * outs} rows of scales: two outputs to a byte"
        return _readable("modelopt-int4", arrays, (said,))
    return _readable("float-quantized", arrays, (f"eight-bit weight, float scales {scale.shape}: FP8 E4M3",))


def _mlx(arrays: Arrays) -> Detection:
    fitting = mlx.candidates(arrays)
    words_ = f"weight {arrays['weight'].shape}, scales {arrays['scales'].shape}"
    shown = ", ".join(f"{b} bits x {g}" for b, g in fitting) or "no bits of MLX"
    said = [f"{words_} fit {shown}"]
    if len(fitting) > 1:
        off = {c: evidence.balance(mlx.unpack(arrays, *c)) for c in fitting}
        said.append("|mean| / mean |x| is " + ", ".join(f"{v:.3f} as {b} bits x {g}" for (b, g), v in off.items()))
        best = [c for c, v in off.items() if v < 0.1]
        if len(best) != 1 or any(not v > 0.3 for c, v in off.items() if c not in best):
            return Detection(("mlx",), {}, (*said, "bits and group_size are ambiguous: they stand in config.json"))
        fitting = best
    if not fitting:
        return Detection((), {}, tuple(said))
    return _readable("mlx", arrays, tuple(said), {"bits": fitting[0][0], "group_size": fitting[0][1]})


def _bitsandbytes(arrays: Arrays) -> Detection:
    kind = next(k for k in bitsandbytes.TYPES if bitsandbytes.STATE + k in arrays)
    nested = "nested" if "weight.nested_absmax" in arrays else "not nested"
    said = f"quant_state says {kind}, absmax {nested}", "the first code of a byte is the high nibble, as its name fixes"
    return _readable(f"bitsandbytes-{kind}", arrays, said)


def _onnx(arrays: Arrays) -> Detection:
    fitting = []
    for bits in (4, 8, 2):
        try:
            onnx.unpack_matmul(arrays, bits)
        except QuantError:
            continue
        fitting.append(bits)
    said = f"B {arrays['B'].shape} with scales: MatMulNBits, bits of the node among {fitting}"
    return Detection(
        ("onnx-matmulnbits",) if fitting else (), {"bits": fitting[0]} if len(fitting) == 1 else {}, (said,)
    )


def _quanto(arrays: Arrays) -> Detection:
    data = arrays[quanto.DATA]
    if data.dtype == np.int8:
        return _readable("quanto", arrays, ("int8 _data with _scale: qint8",))
    rows = len(field("detect", arrays, quanto.SCALE, FLOATS, (None, 1)))
    said = f"_data {data.shape} for {rows} groups: slabs, the first in the low bits", "the shape is in the model only"
    return Detection(("quanto",), {}, said)


def _named(name: str, why: str) -> Callable[[Arrays], Detection]:
    return lambda arrays: _readable(name, arrays, (why,))


def _readable(name: str, arrays: Arrays, said: tuple[str, ...], options: dict | None = None) -> Detection:
    """`name` if its reader accepts the arrays; else nothing, with the reader's complaint."""
    try:
        LAYOUTS[name].unpack(arrays, **(options or {}))
    except QuantError as error:
        return Detection((), {}, (*said, str(error)))
    return Detection((name,), options or {}, said)


_JUDGES: tuple[tuple[tuple[str, ...], Callable[[Arrays], Detection]], ...] = (
    ((bitsandbytes.STATE,), _bitsandbytes),
    (("weight", "SCB"), _named("bitsandbytes-int8", "SCB, the row maxima of int8")),
    (("qweight", "qzeros", "scales"), _packed_words),
    (("weight_packed", "weight_scale"), _weight_packed),
    (("weight", "weight_scale", "weight_scale_2"), lambda a: _nvfp4(a, "modelopt-nvfp4", "weight_scale_2", False)),
    (("weight", "weight_scale"), _weight_and_scale),
    (("weight", "scales", "biases"), _mlx),
    (("weight", "quant_scale", "quant_min"), _named("deepspeed", "quant_scale and quant_min")),
    (("W_q", "scale", "zero"), _named("hqq", "W_q with scale and zero; slabs, the first in the high bits")),
    ((quanto.DATA, quanto.SCALE), _quanto),
    (("quantized_data", "scale"), _named("modelopt-qtensor", "quantized_data: the first code is the high nibble")),
    ((torchao.DATA, torchao.SCALE), _named("torchao-int4", "Int4Tensor: two's complement, low nibble first")),
    (("B", "scales"), _onnx),
)
