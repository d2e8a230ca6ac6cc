"""PyTorch itself: casts to its 8-bit floats, layers of a decoder, observers and quantized tensors of torch.ao.

Observers give ranges; the scale and the zero point that torch.ao makes of them are those of its dialect.
"""

from collections.abc import Mapping

import numpy as np

from conformance.adapters._device import device, of_torch
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported

NAME = "torch"
CASTS = {  # what a float beyond the largest becomes
    **dict.fromkeys(("e5m2", "e4m3fnuz", "e5m2fnuz"), "special"),
    "e4m3fn": "saturate",
    "e8m0": "special",
}


def version() -> str:
    """Of the package, and the accelerator where there is one."""
    return of_torch(installed("torch"))


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Casts of `minifloat`; uint8-token@torch.ao; layers; observers; fake quantization."""
    family, _, member = algorithm.partition(".")
    if family == "layer" and op in LAYERS:
        version()
        return {"y": LAYERS[op](params, inputs).float().cpu().numpy()}
    if family == "training" and op in ("forward", "backward"):
        return _trained(member, op, params, inputs)
    if family == "observer" and member in ("min-max", "moving-average", "histogram"):
        return _ranges(member, params, inputs)
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
        return {"values": torch.tensor(inputs["codes"], device=device()).view(dtype).float().cpu().numpy()}
    return {"codes": torch.tensor(inputs["x"], device=device()).to(dtype).view(torch.uint8).cpu().numpy()}


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


def _ranges(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    version()
    import torch
    from torch.ao.quantization import observer as observers

    if params["scheme"] not in ("int8", "uint8", "int8-channel", "uint8-channel") or "merge" in params:
        raise Unsupported("an observer that is merged, or for other than 8 bits a tensor or a channel")
    by_channel, signed = str(params["scheme"]).endswith("-channel"), str(params["scheme"]).startswith("int")
    names = {"min-max": "MinMaxObserver", "moving-average": "MovingAverageMinMaxObserver"}
    name = names.get(member, "HistogramObserver").replace("MinMax", "PerChannelMinMax" if by_channel else "MinMax")
    kind = f"per_{'channel' if by_channel else 'tensor'}_{'symmetric' if signed else 'affine'}"
    settings = {"bins": params["bins"]} if "bins" in params else {}
    dtype = torch.qint8 if signed else torch.quint8
    made = getattr(observers, name)(dtype=dtype, qscheme=getattr(torch, kind), **settings)
    if member == "moving-average":
        made.averaging_constant = params["constant"]
    for i in range(len(inputs)):
        batch = torch.tensor(inputs[f"batch{i}"])
        if not torch.isfinite(batch).all():
            raise Unsupported("NaN, which these observers take without a word")
        made(batch)
    lo, hi = made._non_linear_param_search() if member == "histogram" else (made.min_val, made.max_val)
    scale, zero = made.calculate_qparams()
    zero = zero.to(torch.int8 if signed else torch.uint8)
    found = {"lo": lo, "hi": hi, "scale": scale, "zero_point": zero}
    shape = (-1, 1) if by_channel else ()
    return {name: array.reshape(shape).numpy() for name, array in found.items()}


def _trained(member: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """fake_quantize and, with a zero point of 0, LSQ; gradients by autograd."""
    version()
    import torch

    scale, inside = inputs.get("scale"), params.get("inside", "rounded")
    if member not in ("fake_quantize", "lsq") or scale is None or scale.ndim or inside != "rounded":
        raise Unsupported("an offset, a clipping that is learned, a scale with axes, another rule of what is inside")
    if inputs["x"].dtype != np.float32 or not scale > 0:
        raise Unsupported("other dtypes than float32, or scales that are not positive, which are taken without a word")
    given = {name: torch.tensor(array, device=device()) for name, array in inputs.items()}
    x, s = given["x"].requires_grad_(), given["scale"].requires_grad_()
    zero = given.get("zero_point", torch.zeros((), device=device()))
    if zero.ndim:
        raise Unsupported("zero points with axes")
    ends = int(params["qmin"]), int(params["qmax"])
    if member == "lsq":
        factor = params.get("gradient_scale", 1.0)
        y = torch._fake_quantize_learnable_per_tensor_affine(x, s.reshape(1), zero.reshape(1), *ends, factor)
    else:
        y = torch.fake_quantize_per_tensor_affine(x, float(s), int(zero), *ends)
    if op == "forward":
        return {"values": y.detach().cpu().numpy()}
    y.backward(given["dy"])
    found = {"dx": x.grad, "dscale": s.grad if member == "lsq" else None}
    return {name: grad.cpu().numpy() for name, grad in found.items() if grad is not None}


def _given(inputs: Arrays) -> dict[str, object]:
    import torch

    return {name: torch.tensor(array, device=device()) for name, array in inputs.items()}


def _rms_norm(params: Mapping[str, object], inputs: Arrays):
    import torch

    x, weight = (_given(inputs)[name] for name in ("x", "weight"))
    return torch.nn.functional.rms_norm(x, weight.shape, weight, params["eps"])


def _attention(params: Mapping[str, object], inputs: Arrays):
    import torch

    q, k, v = (_given(inputs)[name].transpose(0, 1)[None] for name in ("q", "k", "v"))
    tokens, context = q.shape[2], k.shape[2]
    seen = torch.ones(tokens, context, dtype=torch.bool, device=q.device).tril(context - tokens)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=params["scale"], enable_gqa=True)
    return y[0].transpose(0, 1).reshape(tokens, -1)


def _swiglu(params: Mapping[str, object], inputs: Arrays):
    import torch

    given = _given(inputs)
    return torch.nn.functional.silu(given["gate"]) * given["up"]


LAYERS = {"rms_norm": _rms_norm, "attention": _attention, "swiglu": _swiglu}
