"""compressed-tensors, the file format of vLLM and llm-compressor: integers, FP8, MX and NVFP4.

A linear scheme without a dialect is answered too: they part in the scale of groups of zeros. Its codes are signed; for
unsigned schemes codes and zero points are moved by 2^(bits-1).
"""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant import affine, bits
from refquant.schemes import SCHEMES

NAME = "compressed-tensors"
DIALECT = "compressed-tensors"


def version() -> str:
    """Of the package."""
    return installed("compressed-tensors")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Schemes of its dialect, and the plain linear ones."""
    if algorithm == "layout.pack-quantized" and op == "pack":
        return _pack(params, inputs)
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    function = None if scheme is None else _function(scheme)
    if function is None:
        raise Unsupported(f"{algorithm} {op}")
    version()
    with refusals():
        return function(scheme, op, params, inputs)


def _function(scheme):
    if isinstance(scheme.rule, affine.Rule) and scheme.rule.bits > 1:
        plain = affine.Rule(scheme.rule.bits, scheme.rule.signed, scheme.rule.symmetric)
        return _linear if scheme.dialect == DIALECT or (not scheme.dialect and scheme.rule == plain) else None
    if scheme.dialect != DIALECT or scheme.head not in ("mxfp4", "mxfp8_e4m3", "nvfp4", "fp8_e4m3fn"):
        return None
    return _small_floats


def _pack(params, inputs):
    version()
    import torch
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    bits_, size, zero = params["bits"], params["group_size"], inputs["zero_point"]
    spread = [np.repeat(part, size, axis=1) for part in (inputs["scale"], zero.astype(np.float32))]
    state = {
        "weight": torch.tensor((inputs["codes"] - spread[1]) * spread[0]),
        "weight_scale": torch.tensor(inputs["scale"]).half(),
        "weight_zero_point": torch.tensor((zero - (1 << (bits_ - 1))).astype(np.int8)),
    }
    args = QuantizationArgs(num_bits=bits_, symmetric=False, strategy="group", group_size=size)
    with refusals():
        packed = PackedQuantizationCompressor.compress(state, QuantizationScheme(targets=["Linear"], weights=args))
    return {name: tensor.numpy() for name, tensor in packed.items()}


def _linear(scheme, op, params, inputs):
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle import forward
    from compressed_tensors.quantization.utils import calculate_qparams

    rule = scheme.rule
    args = QuantizationArgs(num_bits=rule.bits, symmetric=rule.symmetric, strategy="channel")
    move, dtype = (0, np.int8) if rule.signed else (1 << (rule.bits - 1), np.uint8)
    if op == "decode":
        shape, kind = params["shape"], scheme.granularity
        codes = torch.tensor((_rows.rows(inputs["codes"], scheme).astype(np.int16) - move).astype(np.int8))
        scale = torch.tensor(_rows.per_row(inputs["scale"], shape, kind))
        zero = _rows.per_row(inputs["zero_point"].astype(np.int16) - move, shape, kind)
        values = forward.dequantize(codes, scale, torch.tensor(zero.astype(np.int8)), args, dtype=torch.float32)
        return _rows.outputs(scheme, shape, values=values.numpy())
    x, shape = torch.tensor(_rows.rows(inputs["x"], scheme)), inputs["x"].shape
    scale, zero = calculate_qparams(x.amin(1, keepdim=True), x.amax(1, keepdim=True), args)
    codes = forward.quantize(x, scale, zero, args, dtype=torch.int8).numpy().astype(np.int16) + move
    found = _rows.outputs(scheme, shape, codes=codes.astype(dtype), scale=scale.numpy())
    zero = (zero.numpy().astype(np.int16) + move).astype(dtype)
    if rule.symmetric:
        return found | {"zero_point": zero.ravel()[0]}
    return found | _rows.outputs(scheme, shape, zero_point=zero)


def _small_floats(scheme, op, params, inputs):
    import torch
    from compressed_tensors.compressors.mx_utils import compress_mx_scale
    from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    if op == "decode":
        raise Unsupported("decode of small floats: in bfloat16 only")
    x, shape = torch.tensor(_rows.rows(inputs["x"], scheme)), inputs["x"].shape
    kind = {"num_bits": 4 if scheme.head.endswith("fp4") else 8, "type": "float", "symmetric": True}
    given = torch.uint8 if scheme.head.startswith("mx") else torch.float8_e4m3fn
    if scheme.head == "fp8_e4m3fn":
        args = QuantizationArgs(**kind, strategy="channel")
    else:
        strategy = "tensor_group" if scheme.head == "nvfp4" else "group"
        args = QuantizationArgs(**kind, strategy=strategy, group_size=x.shape[1], scale_dtype=given, zp_dtype=given)
    g = generate_gparam(x.min(), x.max()) if scheme.head == "nvfp4" else None
    grouped = x.unsqueeze(1)
    scale, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args, global_scale=g)
    q = quantize(x, scale, None, args, global_scale=g)
    fp4 = kind["num_bits"] == 4
    codes = (
        bits.unpack(pack_fp4_to_uint8(q).numpy(), 4, x.shape[1])
        if fp4
        else q.to(given if g is not None else torch.float8_e4m3fn).view(torch.uint8).numpy()
    )
    if scheme.head.startswith("mx"):
        scale = _rows.power_of_two(compress_mx_scale(scale, torch.uint8).numpy())
    else:
        scale = scale.float().numpy()
    found = _rows.outputs(scheme, shape, codes=codes, scale=scale)
    return found if g is None else found | {"global_scale": g.float().numpy().reshape(())}
