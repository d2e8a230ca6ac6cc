"""bitsandbytes: NF4, FP4, double quantization, the dynamic map and LLM.int8(), on an accelerator where torch has one.

A scheme without a dialect is answered too: they part on ties, and where a scale is subnormal.
"""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._device import device, of_torch
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant import bits
from refquant.schemes import SCHEMES

NAME = "bitsandbytes"
FOUR_BITS = {"nf4": "nf4", "bnb_fp4": "fp4"}


def version() -> str:
    """Of the package, and the accelerator where there is one."""
    return of_torch(installed("bitsandbytes"))


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """nf4, bnb_fp4, dynamic8, udynamic8."""
    if algorithm.startswith("method.llm_int8"):
        return _rows_of_int8(algorithm.partition("@")[2], op, params, inputs)
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    if scheme is None or scheme.head not in (*FOUR_BITS, "dynamic8", "udynamic8"):
        raise Unsupported(f"{algorithm} {op}")
    version()
    import torch

    if scheme.dialect not in ("", f"bitsandbytes-{device()}"):
        raise Unsupported(f"{algorithm}: this machine has {device()}")
    if device() == "cuda" and not all(array.size for array in inputs.values()):
        raise ChildProcessError("a tensor without values is an empty grid, and its CUDA library then ends the process")
    moved = {name: torch.tensor(array, device=device()) for name, array in inputs.items()}
    with refusals():
        function = _four_bits if scheme.head in FOUR_BITS else _eight_bits
        return function(scheme, moved, op, params)


def _rows_of_int8(dialect: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Codes of rows; the product is spread over several operators of the package, and not asked for."""
    version()
    import torch
    from bitsandbytes import functional as F

    mine = "bitsandbytes-cuda" if device() == "cuda" else "bitsandbytes-default"
    if op != "encode" or dialect not in ("", mine):
        raise Unsupported(f"method.llm_int8@{dialect} {op}: this machine has {device()}")
    x = torch.tensor(inputs["x"], device=device())
    with refusals():
        codes, absmax, outliers = F.int8_vectorwise_quant(x.half() if device() == "cuda" else x, params["threshold"])
    outliers = np.zeros(0, np.int64) if outliers is None else outliers.cpu().numpy().astype(np.int64)
    return {"codes": codes.cpu().numpy(), "scale": absmax.cpu().numpy(), "outliers": outliers}


def _four_bits(scheme, inputs, op, params):
    import torch
    from bitsandbytes import functional as F

    size, kind = scheme.granularity.size, FOUR_BITS[scheme.head]
    if op == "decode":
        shape, codes = params["shape"], inputs["codes"]
        packed = torch.tensor(bits.pack(codes.cpu().numpy().reshape(-1), 4, order="high"), device=codes.device)
        levels = F.get_4bit_type(kind, device=codes.device)
        state = F.QuantState(
            inputs["scale"].ravel(), torch.Size(shape), levels, blocksize=size, quant_type=kind, dtype=torch.float32
        )
        return {"values": F.dequantize_4bit(packed[:, None], state).cpu().numpy().reshape(shape)}
    x, double = inputs["x"], scheme.rule.double
    packed, state = F.quantize_4bit(x, blocksize=size, quant_type=kind, compress_statistics=double)
    codes = bits.unpack(packed.cpu().numpy().reshape(-1), 4, x.numel(), order="high").reshape(x.shape)
    scale = F.dequantize_blockwise(state.absmax, state.state2) + state.offset if double else state.absmax
    found = {"codes": codes, **_rows.outputs(scheme, tuple(x.shape), scale=scale.cpu().numpy())}
    if double:
        found |= {"scale_codes": state.absmax.cpu().numpy(), "scale_absmax": state.state2.absmax.cpu().numpy()}
        found |= {"scale_offset": state.offset.cpu().numpy()}
    return found


def _eight_bits(scheme, inputs, op, params):
    from bitsandbytes import functional as F

    levels, size = F.create_dynamic_map(scheme.head == "dynamic8"), scheme.granularity.size
    if op == "decode":
        codes, scale = inputs["codes"], inputs["scale"]
        values = F.dequantize_blockwise(codes, absmax=scale, code=levels.to(codes.device), blocksize=size)
        return {"values": values.cpu().numpy()}
    codes, state = F.quantize_blockwise(inputs["x"], code=levels.to(inputs["x"].device), blocksize=size)
    return {"codes": codes.cpu().numpy(), "scale": state.absmax.cpu().numpy()}
