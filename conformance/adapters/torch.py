"""PyTorch itself: casts to its 8-bit floats, and the observers and quantized tensors of torch.ao."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported

NAME = "torch"
CASTS = {  # what a float beyond the largest becomes
    **dict.fromkeys(("e5m2", "e4m3fnuz", "e5m2fnuz"), "special"),
    "e4m3fn": "saturate",
    "e8m0": "special",
}


def version() -> str:
    """Of the package."""
    return installed("torch")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Casts of `minifloat`; uint8-token@torch.ao."""
    family, _, member = algorithm.partition(".")
    if family == "minifloat" and member in CASTS and params.get("overflow", CASTS[member]) == CASTS[member]:
        return _cast(member, op, inputs)
    if family == "scheme" and member in ("fp8_e4m3fn-cast", "fp8_e5m2-cast"):
        return _cast(member[4:-5], op, inputs)
    if algorithm == "scheme.uint8-token@torch.ao":
        return _per_token(op, inputs)
    raise Unsupported(f"{algorithm} {op}")


def _cast(member: str, op: str, inputs: Arrays) -> dict[str, np.ndarray]:
    version()
    import torch

    dtype = torch.float8_e8m0fnu if member == "e8m0" else getattr(torch, f"float8_{member}")
    if op == "decode":
        return {"values": torch.tensor(inputs["codes"]).view(dtype).float().numpy()}
    return {"codes": torch.tensor(inputs["x"]).to(dtype).view(torch.uint8).numpy()}


def _per_token(op: str, inputs: Arrays) -> dict[str, np.ndarray]:
    version()
    import torch
    from torch.ao.quantization import PerChannelMinMaxObserver

    if op == "decode":
        scale, zero = (torch.tensor(inputs[name]).ravel() for name in ("scale", "zero_point"))
        q = torch._make_per_channel_quantized_tensor(torch.tensor(inputs["codes"]), scale, zero.long(), 0)
        return {"values": q.dequantize().numpy()}
    x = torch.tensor(inputs["x"])
    with refusals():
        observer = PerChannelMinMaxObserver(ch_axis=0, dtype=torch.quint8, qscheme=torch.per_channel_affine)
        observer(x)
        scale, zero = observer.calculate_qparams()
        codes = torch.quantize_per_channel(x, scale, zero, 0, torch.quint8).int_repr()
    zero = zero[:, None].to(torch.uint8)
    return {"codes": codes.numpy(), "scale": scale[:, None].numpy(), "zero_point": zero.numpy()}
