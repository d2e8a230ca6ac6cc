"""The oracle itself: what the vectors are made with, and what a release is checked against."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import numpy as np

from conformance.adapters import _refquant_methods as _methods
from conformance.adapters import _refquant_records as _records
from conformance.adapters import _refquant_steps as _steps
from conformance.adapters import _refquant_text as _text
from conformance.adapters import _refquant_turns as _turns
from conformance.adapters import _refquant_variants as _variants
from conformance.adapters import _refquant_vectors as _vectors
from conformance.adapters import _sampling
from conformance.protocol import Arrays, Refused, Unsupported

NAME = "refquant"


def version() -> str:
    """Of the installed distribution, or of the source tree."""
    import refquant

    try:
        return installed("refquant")
    except PackageNotFoundError:
        return refquant.__version__


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Dispatch on the family: the word before the first dot."""
    from refquant.errors import QuantError

    family, _, member = algorithm.partition(".")
    if (family, op) not in OPERATIONS:
        raise Unsupported(f"{algorithm} {op}")
    try:
        return OPERATIONS[family, op](member, params, inputs)
    except QuantError as error:
        raise Refused(str(error)) from error


def _encode_scheme(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    import refquant

    q = refquant.quantize(inputs["x"], member)
    found = {"codes": q.codes, "scale": q.scale, "zero_point": q.zero_point, **q.extras}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def _decode_scheme(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant.schemes import parse
    from refquant.tensor import QuantizedTensor

    parts = dict(inputs)
    shape = tuple(params["shape"])
    codes, scale, zero = parts.pop("codes"), parts.pop("scale", None), parts.pop("zero_point", None)
    return {"values": QuantizedTensor(codes, scale, zero, parse(member), shape, parts).dequantize()}


def _encode_gguf(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant import gguf

    return {"bytes": gguf.quantize(inputs["x"], member, imatrix=inputs.get("importance"))}


def _decode_gguf(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant import gguf

    return {"values": gguf.dequantize(inputs["bytes"], member)}


def _encode_minifloat(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant import minifloat

    return {"codes": minifloat.encode(inputs["x"], minifloat.FORMATS[member], overflow=params["overflow"])}


def _decode_minifloat(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant import minifloat

    return {"values": minifloat.decode(inputs["codes"], minifloat.FORMATS[member])}


def _pack(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from refquant.layouts import Linear, pack

    return dict(pack(Linear(**inputs, **params), member))


def _record(member: str, params: Mapping[str, object], inputs: Arrays):
    from refquant.layouts import unpack

    told = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    return unpack(dict(inputs), member, **told)


def _unpack(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    record = _record(member, params, inputs)
    return {"codes": record.codes, "scale": record.scale, "zero_point": record.zero_point}


def _decode_layout(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    return {"values": _record(member, params, inputs).dequantize()}


OPERATIONS: dict[tuple[str, str], Callable[[str, Mapping[str, object], Arrays], dict[str, np.ndarray]]] = {
    ("scheme", "encode"): _encode_scheme,
    ("scheme", "decode"): _decode_scheme,
    ("gguf", "encode"): _encode_gguf,
    ("gguf", "decode"): _decode_gguf,
    ("layout", "pack"): _pack,
    ("layout", "unpack"): _unpack,
    ("layout", "decode"): _decode_layout,
    ("minifloat", "encode"): _encode_minifloat,
    ("minifloat", "decode"): _decode_minifloat,
    ("variant", "encode"): _variants.encode,
    ("variant", "decode"): _variants.decode,
    ("variant", "size"): _variants.size,
    ("bits", "pack"): _variants.pack_bits,
    ("bits", "unpack"): _variants.unpack_bits,
    ("words", "pack"): _records.pack_words,
    ("words", "unpack"): _records.unpack_words,
    ("tensor", "pack"): _records.pack_tensor,
    ("tensor", "unpack"): _records.unpack_tensor,
    ("checkpoint", "write"): _records.write,
    ("checkpoint", "read"): _records.read,
    ("checkpoint", "weight"): _records.weight,
    ("observer", "range"): _methods.observe,
    ("levels", "table"): _methods.table,
    ("method", "transform"): _methods.transform,
    ("method", "quantize"): _methods.quantize,
    ("method", "weight"): _methods.weight,
    ("method", "prune"): _methods.prune,
    ("method", "saliency"): _methods.saliency,
    ("method", "channel_scale"): _methods.channel_scale,
    ("method", "encode"): _methods.encode_rows,
    ("method", "product"): _methods.multiply_rows,
    ("product", "matvec"): _methods.multiply_blocks,
    ("step", "call"): _steps.call,
    ("vector", "decode"): _vectors.decode,
    ("vector", "weight"): _vectors.decode,
    ("vector", "tiles"): _vectors.tiles,
    ("vector", "unpack"): _vectors.unpack,
    ("vector", "states"): _vectors.states,
    ("cache", "keep"): _vectors.keep,
    ("cache", "size"): _vectors.size,
    ("cache", "fit"): _vectors.fit,
    ("rotation", "matrix"): _turns.matrix,
    ("rotation", "transform"): _turns.transform,
    ("rotation", "orthogonal"): _turns.orthogonal,
    ("rotation", "turn"): _turns.turn,
    ("rotation", "step"): _turns.step,
    ("rotation", "incoherent"): _turns.incoherent,
    ("rotation", "coherent"): _turns.coherent,
    ("rotation", "incoherence"): _turns.incoherence,
    ("collective", "all_gather"): _turns.all_gather,
    ("collective", "reduce_scatter"): _turns.reduce_scatter,
    ("training", "forward"): _turns.forward,
    ("training", "backward"): _turns.backward,
    ("training", "first_scale"): _turns.first_scale,
    ("training", "gradient_scale"): _turns.gradient_scale,
    ("layer", "rms_norm"): _text.rms_norm,
    ("layer", "rope"): _text.rotate,
    ("layer", "attention"): _text.attend,
    ("layer", "swiglu"): _text.gated,
    ("tokenizer", "encode"): _text.encode_text,
    ("tokenizer", "decode"): _text.decode_text,
    ("template", "render"): _text.render,
    ("sampler", "candidates"): _sampling.candidates,
    ("sampler", "draw"): _sampling.draw,
    ("model", "logits"): _text.logits,
}
