"""HQQ without its optimization: a float zero point, codes by a multiplier."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant.schemes import SCHEMES

NAME = "hqq"


def version() -> str:
    """Of the package."""
    return installed("hqq")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Schemes of its dialect, in groups along a row."""
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    if scheme is None or scheme.dialect != "hqq":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch
    from hqq.core.quantize import Quantizer

    if op == "decode":
        shape, kind = params["shape"], scheme.granularity
        scale, zero = (torch.tensor(_rows.per_row(inputs[name], shape, kind)) for name in ("scale", "zero_point"))
        meta = {"scale": scale, "zero": zero, "compute_dtype": torch.float32, "packing": None, "axis": 1}
        codes = _rows.rows(inputs["codes"], scheme)
        meta |= {"shape": codes.shape, "group_size": codes.shape[1], "nbits": scheme.rule.bits}
        values = Quantizer.dequantize(torch.tensor(codes), meta | {"view_as_float": False})
        return _rows.outputs(scheme, shape, values=values.numpy())
    x = torch.tensor(_rows.rows(inputs["x"], scheme))
    with refusals():
        codes, meta = Quantizer.quantize(
            x, nbits=scheme.rule.bits, group_size=x.shape[1], optimize=False, axis=1, bitpack=False, device="cpu"
        )
    codes, scale, zero = codes.numpy().astype(np.uint8), meta["scale"].numpy(), meta["zero"].numpy()
    return _rows.outputs(scheme, inputs["x"].shape, codes=codes, scale=scale, zero_point=zero)
