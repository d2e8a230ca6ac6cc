"""gguf-py, the Python package of the llama.cpp project: block types in NumPy."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters._package import installed
from conformance.protocol import Arrays, Refused, Unsupported

NAME = "gguf-py"


def version() -> str:
    """Of the package `gguf`."""
    return installed("gguf")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode x -> bytes, decode bytes -> values, of the types that it has."""
    family, _, member = algorithm.partition(".")
    if family != "gguf" or "importance" in inputs:
        raise Unsupported(f"{algorithm} {op}")
    version()
    import gguf

    if member not in gguf.GGMLQuantizationType.__members__:
        raise Unsupported(f"{algorithm}: no such type")
    kind = gguf.GGMLQuantizationType[member]
    try:
        if op == "encode":
            with np.errstate(all="ignore"):
                return {"bytes": gguf.quantize(inputs["x"], kind).view(np.uint8)}
        with np.errstate(all="ignore"):
            return {"values": gguf.dequantize(inputs["bytes"], kind)}
    except NotImplementedError as error:
        raise Unsupported(f"{algorithm} {op}: {error}") from error
    except gguf.QuantError as error:
        raise Refused(str(error)) from error
