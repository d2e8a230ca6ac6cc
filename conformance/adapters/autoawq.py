"""AutoAWQ: its packers, and pseudo_quantize_tensor, which gives values: each code is named by its value."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant.schemes import SCHEMES

NAME = "AutoAWQ"


def version() -> str:
    """Of the package."""
    return installed("autoawq")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode of the schemes of its dialect."""
    if algorithm in ("layout.awq-gemm", "layout.awq-gemv") and op == "pack":
        return _pack(algorithm.removeprefix("layout.awq-"), params, inputs)
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    if scheme is None or scheme.dialect != "awq" or op != "encode":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch
    from awq.quantize.quantizer import AwqQuantizer

    x = torch.tensor(_rows.rows(inputs["x"], scheme))
    asked = AwqQuantizer.__new__(AwqQuantizer)  # only three of its fields are looked at
    asked.group_size, asked.w_bit, asked.zero_point = x.shape[1], scheme.rule.bits, True
    with refusals():
        values, scale, zero = asked.pseudo_quantize_tensor(x)
    codes = np.rint(values.numpy() / scale.numpy() + zero.numpy()).astype(np.uint8)
    arrays = {"codes": codes, "scale": scale.numpy(), "zero_point": zero.numpy().astype(np.uint8)}
    return _rows.outputs(scheme, inputs["x"].shape, **arrays)


def _pack(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    version()
    import torch
    from awq.modules import linear as modules

    scale, zero = (torch.tensor(inputs[name].astype(np.float32)) for name in ("scale", "zero_point"))
    size = params["group_size"]
    spread = [np.repeat(part.numpy(), size, axis=1) for part in (scale, zero)]
    layer = torch.nn.Linear(inputs["codes"].shape[1], inputs["codes"].shape[0], bias=False)
    layer.weight.data = torch.tensor((inputs["codes"] - spread[1]) * spread[0])
    if member == "gemm":
        scale, zero = scale.t().contiguous(), zero.t().contiguous()
    maker = modules.WQLinear_GEMM if member == "gemm" else modules.WQLinear_GEMV
    with refusals():
        made = maker.from_linear(layer, params["bits"], size, scales=scale, zeros=zero)
    return {name: getattr(made, name).numpy() for name in ("qweight", "qzeros", "scales")}
