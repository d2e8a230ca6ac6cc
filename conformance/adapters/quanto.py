"""optimum-quanto: int8 channels, and groups with a float shift, which is minus the zero point of the scheme."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported

NAME = "optimum-quanto"


def version() -> str:
    """Of the package."""
    return installed("optimum-quanto")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """int8-channel@quanto, uint4-g128@quanto, encode."""
    if algorithm not in ("scheme.int8-channel@quanto", "scheme.uint4-g128@quanto") or op != "encode":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch
    from optimum import quanto

    x = torch.tensor(inputs["x"])
    with refusals():
        if algorithm == "scheme.int8-channel@quanto":
            scale = quanto.AbsmaxOptimizer()(x, quanto.qint8, 0)
            codes = torch.ops.quanto.quantize_symmetric(x, torch.int8, 0, scale)
            return {"codes": codes.numpy(), "scale": scale.numpy(), "zero_point": np.int8(0)}
        scale, shift = quanto.MaxOptimizer()(x, quanto.qint4, 0, 128)
        codes = torch.ops.quanto.quantize_affine(x, 4, 0, 128, scale, shift).reshape(x.shape)
    return {"codes": codes.numpy().astype(np.uint8), "scale": scale.numpy(), "zero_point": -shift.numpy()}
