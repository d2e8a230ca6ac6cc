"""Our own compiled encoders of ggml's types, which are spelled independently of refquant.

The first run compiles them all, some minutes; REFQUANT_CACHE says where they are kept.
"""

import importlib.util
from collections.abc import Mapping

import numpy as np

from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant.errors import QuantError, UnsupportedError

NAME = "runtime (Numba), encoders"


def version() -> str:
    """Of Numba, which compiles them."""
    return f"of this tree, numba {installed('numba')}"


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode, with importance or without."""
    family, _, member = algorithm.partition(".")
    if family != "gguf" or op != "encode":
        raise Unsupported(f"{algorithm} {op}")
    version()
    if importlib.util.find_spec("runtime") is None:
        raise Unsupported("the runtime is not part of this installation")
    encoders = importlib.import_module("runtime.encoders")
    if member not in encoders.ENCODERS:
        raise Unsupported(f"{algorithm}: no compiled encoder")
    try:
        with refusals(QuantError):
            return {"bytes": encoders.quantize(inputs["x"], member, imatrix=inputs.get("importance"))}
    except UnsupportedError as error:
        raise Unsupported(str(error)) from error
