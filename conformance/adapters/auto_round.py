"""auto-round without its search: MX, NVFP4 and FP8. MX and FP8 give values: each code is named by its value."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant import bits, minifloat
from refquant.minifloat import FORMATS
from refquant.schemes import SCHEMES

NAME = "auto-round"


def version() -> str:
    """Of the package."""
    return installed("auto-round")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode of the schemes of its dialects."""
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    functions = {"mxfp4": _mx, "nvfp4": _nvfp4, "fp8_e4m3fn": _fp8}
    if scheme is None or not scheme.dialect.startswith("auto-round") or op != "encode":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch

    with refusals(), np.errstate(all="ignore"):
        x = torch.tensor(_rows.rows(inputs["x"], scheme))
        return functions[scheme.head](torch, scheme, x, inputs["x"].shape)


def _mx(torch, scheme, x, shape):
    from auto_round.data_type import mxfp

    function = mxfp.quant_mx_rceil if scheme.dialect.endswith("rceil") else mxfp.quant_mx
    values, exponent, _ = function(x, 4, 32, data_type="mx_fp")
    scale = np.exp2(exponent.numpy().reshape(-1, 1)).astype(np.float32)
    codes = minifloat.encode(values.numpy() / scale, FORMATS["e2m1"])
    return _rows.outputs(scheme, shape, codes=codes, scale=scale)


def _nvfp4(torch, scheme, x, shape):
    from auto_round.data_type import nvfp
    from auto_round.export.export_to_autoround.qlinear_fp import _pack_fp4_to_uint8

    _, scale, _ = nvfp.nv_fp4(x, group_size=16)
    g = nvfp.calculate_gparam(x)
    factor = nvfp.get_reciprocal(scale.reshape(-1, 1) * nvfp.get_reciprocal(g))
    packed = _pack_fp4_to_uint8(nvfp.cast_to_fp4((x * factor).clamp(-6, 6)))
    codes = bits.unpack(packed.numpy(), 4, 16)
    found = _rows.outputs(scheme, shape, codes=codes, scale=scale.float().numpy())
    return found | {"global_scale": g.numpy().astype(np.float32).reshape(())}


def _fp8(torch, scheme, x, shape):
    from auto_round.data_type.fp8 import quant_fp8_sym

    values, scale, _ = quant_fp8_sym(x)
    scale = scale.numpy().reshape(-1, 1)
    codes = minifloat.encode(values.numpy() / scale, FORMATS["e4m3fn"])
    return _rows.outputs(scheme, shape, codes=codes, scale=scale)
