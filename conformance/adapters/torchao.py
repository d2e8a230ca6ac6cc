"""torchao: affine quantization, tinygemm's, scaled FP8, microscaling, NVFP4; on an accelerator where torch has one."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._device import device, of_torch
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant import bits
from refquant.schemes import SCHEMES, Scheme

NAME = "torchao"
MODES = {"floor": "FLOOR", "even": "EVEN", "ceil": "CEIL", "rceil": "RCEIL"}
ELEMENTS = {
    "mxfp4": "float4_e2m1fn_x2",
    "mxfp6_e2m3": "fp6_e2m3",
    "mxfp6_e3m2": "fp6_e3m2",
    "mxfp8_e4m3": "float8_e4m3fn",
    "mxfp8_e5m2": "float8_e5m2",
}


def version() -> str:
    """Of the package, and the accelerator where there is one."""
    return of_torch(installed("torchao"))


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Schemes of its dialects, and those without a dialect that it follows but for zeros and the smallest scales."""
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    function = None if scheme is None else _function(scheme)
    if function is None:
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch

    with refusals():
        if op == "decode":
            return function(
                torch, scheme, None, {n: torch.tensor(a, device=device()) for n, a in inputs.items()}, params["shape"]
            )
        return function(
            torch, scheme, torch.tensor(_rows.rows(inputs["x"], scheme), device=device()), None, inputs["x"].shape
        )


def _function(scheme: Scheme):
    own = scheme.dialect.startswith("torchao")
    if scheme.head in ELEMENTS and (own or not scheme.dialect) and scheme.granularity.kind == "group":
        return _mx if scheme.rule.scale_rule in MODES else None
    if scheme.head == "nvfp4" and own:
        return _nvfp4
    if scheme.head in ("fp8_e4m3fn", "fp8_e5m2") and not scheme.dialect and scheme.rule.scaled:
        return _fp8
    if scheme.head.lstrip("u").startswith("int") and (own or scheme.dialect == "tinygemm"):
        return _affine
    return None


def _mx(torch, scheme, x, stored, shape):
    from torchao.prototype.mx_formats import mx_tensor as mx

    six = "fp6" in scheme.head
    element = ELEMENTS[scheme.head] if six else getattr(torch, ELEMENTS[scheme.head])
    if stored is not None:
        codes, scale = stored["codes"].cpu().numpy(), stored["scale"].cpu().numpy()
        data = torch.tensor(
            bits.pack(codes, 4).reshape(shape[0], -1) if scheme.head == "mxfp4" else codes, device=device()
        )
        data = data if six or scheme.head == "mxfp4" else data.view(element)
        exponents = torch.tensor((np.frexp(scale)[1] + 126).astype(np.uint8), device=device()).view(
            torch.float8_e8m0fnu
        )
        return {"values": mx.to_dtype(data, exponents, element, 32, torch.float32).cpu().numpy().reshape(shape)}
    scale, data = mx.to_mx(x, element, 32, mx.ScaleCalculationMode[MODES[scheme.rule.scale_rule]])
    data = data.view(torch.uint8).cpu().numpy()
    codes = bits.unpack(data, 4, x.shape[-1]) if scheme.head == "mxfp4" else data
    scale = _rows.power_of_two(scale.view(torch.uint8).cpu().numpy())
    return _rows.outputs(scheme, shape, codes=codes, scale=scale)


def _nvfp4(torch, scheme, x, stored, shape):
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

    if stored is not None:
        raise Unsupported("nvfp4 decode: only of a tensor that it made")
    tensor = None if scheme.dialect == "torchao-local" else per_tensor_amax_to_scale(x.abs().max())
    scale, data = nvfp4_quantize(x, 16, tensor)
    codes = bits.unpack(data.view(torch.uint8).cpu().numpy(), 4, 16)
    found = _rows.outputs(scheme, shape, codes=codes, scale=scale.view(torch.float8_e4m3fn).float().cpu().numpy())
    return found if tensor is None else found | {"tensor_scale": tensor.cpu().numpy()}


def _fp8(torch, scheme, x, stored, shape):
    from torchao.quantization import quant_primitives as primitives

    dtype = getattr(torch, f"float8_{scheme.head[4:]}")
    if stored is not None:
        codes = torch.tensor(_rows.rows(stored["codes"].cpu().numpy(), scheme), device=device()).view(dtype)
        scale = torch.tensor(_rows.per_row(stored["scale"].cpu().numpy(), shape, scheme.granularity), device=device())
        values = primitives._dequantize_affine_float8(codes, scale, torch.float32)
        return _rows.outputs(scheme, shape, values=values.cpu().numpy())
    scale = primitives._choose_scale_float8(x, [1, x.shape[1]], dtype)
    codes = primitives._quantize_affine_float8(x, scale, dtype).view(torch.uint8)
    return _rows.outputs(scheme, shape, codes=codes.cpu().numpy(), scale=scale.cpu().numpy())


def _affine(torch, scheme, x, stored, shape):
    from torchao.quantization import quant_primitives as primitives

    rule, block = scheme.rule, (1, int(np.prod(shape)) // _rows.count(scheme, shape))
    low = -(1 << (rule.bits - 1)) if rule.signed else 0
    limits = (torch.int8 if rule.signed else torch.uint8, low, low + (1 << rule.bits) - 1)
    kind = primitives.MappingType.SYMMETRIC if rule.symmetric else primitives.MappingType.ASYMMETRIC
    tiny = scheme.dialect == "tinygemm"
    if stored is not None:
        codes = torch.tensor(_rows.rows(stored["codes"].cpu().numpy(), scheme), device=device())
        scale, zero = (
            torch.tensor(_rows.per_row(stored[name].cpu().numpy(), shape, scheme.granularity), device=device())
            for name in ("scale", "zero_point")
        )
        decode = primitives._dequantize_affine_tinygemm if tiny else primitives.dequantize_affine
        return _rows.outputs(scheme, shape, values=decode(codes, block, scale, zero, *limits).cpu().numpy())
    choose = primitives._choose_qparams_affine_tinygemm if tiny else primitives.choose_qparams_affine
    encode = primitives._quantize_affine_tinygemm if tiny else primitives.quantize_affine
    scale, zero = choose(x, kind, block, *limits, 1e-6 if tiny else None)
    codes = encode(x, block, scale, zero, *limits).cpu().numpy()
    zero = zero.cpu().numpy() if tiny else zero.cpu().numpy().astype(codes.dtype)
    if rule.symmetric:  # a zero for every group, all alike
        found = _rows.outputs(scheme, shape, codes=codes, scale=scale.cpu().numpy())
        return found | {"zero_point": zero.ravel()[0]}
    return _rows.outputs(scheme, shape, codes=codes, scale=scale.cpu().numpy(), zero_point=zero)
