"""ml_dtypes, the small floats of JAX and TensorFlow as NumPy dtypes: casts that overflow to infinity or NaN."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters._package import installed
from conformance.protocol import Arrays, Unsupported

NAME = "ml_dtypes"
DTYPES = {
    **{name: f"float8_{name}" for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e4m3b11fnuz", "e4m3", "e3m4")},
    "e2m3": "float6_e2m3fn",
    "e3m2": "float6_e3m2fn",
    "e2m1": "float4_e2m1fn",
    "e8m0": "float8_e8m0fnu",
}


def version() -> str:
    """Of the package."""
    return installed("ml_dtypes")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Casts of `minifloat` where overflow is special."""
    family, _, member = algorithm.partition(".")
    if family != "minifloat" or member not in DTYPES or params.get("overflow", "special") != "special":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import ml_dtypes

    dtype = getattr(ml_dtypes, DTYPES[member])
    with np.errstate(all="ignore"):
        if op == "decode":
            return {"values": inputs["codes"].view(dtype).astype(np.float32)}
        return {"codes": inputs["x"].astype(dtype).view(np.uint8)}
