"""refquant on schemes said in words, on bytes of codes, and on sizes. Imported by the adapter."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays


def encode(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x -> codes, scale, zero_point and what else there is; the other inputs are what the caller gives."""
    import refquant

    given = {name: array for name, array in inputs.items() if name != "x"}
    q = refquant.quantize(inputs["x"], _scheme(member, params), **given)
    found = {"codes": q.codes, "scale": q.scale, "zero_point": q.zero_point, **q.extras}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def decode(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs of encode -> values."""
    from refquant.tensor import QuantizedTensor

    parts, shape = dict(inputs), tuple(params["shape"])
    codes, scale, zero = parts.pop("codes"), parts.pop("scale", None), parts.pop("zero_point", None)
    return {"values": QuantizedTensor(codes, scale, zero, _scheme(member, params), shape, parts).dequantize()}


def size(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Stored bits of a weight, and bytes of an array of `shape`."""
    scheme = _scheme(member, params)
    bits, count = scheme.bits_per_weight, scheme.nbytes(tuple(params["shape"]))
    return {"bits_per_weight": np.asarray(bits, np.float64), "bytes": np.asarray(count, np.int64)}


def _scheme(member: str, params: Mapping[str, object]):
    """params["scheme"], or member-words@dialect, with values of its rule's fields in place of what the words say."""
    from refquant.schemes import parse

    member = params.get("scheme", member)
    name, at, dialect = member.partition("@")
    scheme = parse(f"{name}-{params['words']}{at}{dialect}" if params.get("words") else member)
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in params.get("fields", {}).items()}
    return dataclasses.replace(scheme, rule=dataclasses.replace(scheme.rule, **fields)) if fields else scheme


def pack_bits(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """codes -> bytes, in the order that the member names."""
    from refquant import bits

    return {"bytes": bits.pack(inputs["codes"], params["bits"], member)}


def unpack_bits(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """bytes -> codes."""
    from refquant import bits

    signed = bool(params.get("signed", False))
    return {"codes": bits.unpack(inputs["bytes"], params["bits"], params["count"], member, signed)}
