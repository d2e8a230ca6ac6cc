"""MLX: weights of its affine layout and of its microscaled modes, decoded where MLX puts arrays by default."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant import bits, minifloat
from refquant.minifloat import FORMATS
from refquant.schemes import SCHEMES

NAME = "MLX"
MODES = {"mxfp4": "mxfp4", "mxfp8_e4m3": "mxfp8", "nvfp4": "nvfp4"}


def version() -> str:
    """Of the package."""
    return installed("mlx")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """decode of layout.mlx, of MXFP4, MXFP8 and of NVFP4 without a scale of the tensor."""
    if op != "decode":
        raise Unsupported(f"{algorithm} {op}")
    if algorithm == "layout.mlx":
        version()
        import mlx.core as mx

        kinds = {"weight": mx.uint32, "scales": mx.float32, "biases": mx.float32}
        parts = [mx.array(inputs[name]).astype(kind) for name, kind in kinds.items()]
        with refusals():
            values = mx.dequantize(*parts, group_size=params["group_size"], bits=params["bits"])
        return {"values": np.array(values)}
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    grouped = scheme is not None and scheme.head in MODES and scheme.granularity.kind == "group"
    if not grouped or {"tensor_scale", "global_scale"} & inputs.keys():
        raise Unsupported(f"{algorithm} {op}")
    version()
    return _microscaled(scheme, params["shape"], inputs)


def _microscaled(scheme, shape, inputs) -> dict[str, np.ndarray]:
    import mlx.core as mx

    codes, scale = _rows.rows(inputs["codes"], scheme), inputs["scale"].reshape(-1, 1)
    data = bits.pack(codes, 4).reshape(len(codes), -1) if scheme.head != "mxfp8_e4m3" else codes
    kind = "e4m3fn" if scheme.head == "nvfp4" else "e8m0"
    stored = mx.array(minifloat.encode(scale, FORMATS[kind]))
    words = mx.array(np.ascontiguousarray(data).view(np.uint32))
    with refusals():
        values = mx.dequantize(words, stored, mode=MODES[scheme.head], dtype=mx.float32)
    return _rows.outputs(scheme, tuple(shape), values=np.array(values))
