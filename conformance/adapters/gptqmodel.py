"""GPTQModel: its packer of version 2, and its Quantizer, which gives values: each code is named by its value."""

import os
from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant.schemes import SCHEMES

NAME = "GPTQModel"


def version() -> str:
    """Of the package."""
    return installed("gptqmodel")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode of the schemes of its dialect; its codes are unsigned, those of signed schemes 2^(bits-1) less."""
    if algorithm == "layout.gptq_v2" and op == "pack":
        return _pack(params, inputs)
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    if scheme is None or scheme.dialect != "gptq" or op != "encode":
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.quantization.quantizer import Quantizer, quantize

    rule = scheme.rule
    found = Quantizer(qcfg=QuantizeConfig(bits=rule.bits, group_size=scheme.granularity.size, sym=rule.symmetric))
    found.configure(perchannel=True)
    x = torch.tensor(_rows.rows(inputs["x"], scheme))
    with refusals():
        found.find_params(x, weight=True)
        values = quantize(x, found.scale, found.zero, int(found.maxq), False).numpy()
    scale, zero = found.scale.numpy(), found.zero.numpy()
    move, dtype = (1 << (rule.bits - 1), np.int8) if rule.signed else (0, np.uint8)
    codes = (np.rint(values / scale + zero) - move).astype(dtype)
    arrays = _rows.outputs(scheme, inputs["x"].shape, codes=codes, scale=scale)
    zero = (zero - move).astype(dtype)
    if rule.symmetric:
        return arrays | {"zero_point": zero.ravel()[0]}
    return arrays | _rows.outputs(scheme, inputs["x"].shape, zero_point=zero)


def _pack(params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    version()
    os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"  # its Python path; the extension would be compiled first
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    outs, ins = inputs["codes"].shape
    size, scale, zero = params["group_size"], inputs["scale"], inputs["zero_point"].astype(np.float32)
    module = TorchLinear(
        bits=params["bits"], group_size=size, sym=False, desc_act=False, in_features=ins, out_features=outs,
        bias=False, pack_dtype=torch.int32, format="gptq_v2", register_buffers=True,
    )  # fmt: skip
    layer = torch.nn.Linear(ins, outs, bias=False)
    values = (inputs["codes"] - np.repeat(zero, size, axis=1)) * np.repeat(scale, size, axis=1)
    layer.weight.data = torch.tensor(values)
    order = torch.arange(ins, dtype=torch.int32) // size
    with refusals():
        module.pack_block(layer, torch.tensor(scale), torch.tensor(zero).to(torch.int32), order)
    return {name: getattr(module, name).numpy() for name in ("qweight", "qzeros", "scales", "g_idx")}
