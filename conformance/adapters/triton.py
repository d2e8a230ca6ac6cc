"""Triton kernels: how the author of one holds it against the vectors. Three decoders, on a GPU that torch sees.

Q4_0      a program a block of 18 bytes; NF4: a program a group; E4M3FN: by the cast of the hardware
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from conformance.adapters import _rows
from conformance.adapters._device import of_torch
from conformance.adapters._package import installed
from conformance.protocol import Arrays, Unsupported
from refquant.schemes import SCHEMES

NAME = "triton (kernels of this file)"


def version() -> str:
    """Of triton, and the accelerator."""
    found = installed("triton")
    import torch

    if not torch.cuda.is_available():
        raise Unsupported("no GPU")
    return of_torch(found)


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """decode of gguf.Q4_0, of NF4 in groups and of minifloat.e4m3fn."""
    scheme = SCHEMES.get(algorithm.removeprefix("scheme."))
    if op != "decode":
        raise Unsupported(f"{algorithm} {op}")
    if algorithm == "gguf.Q4_0":
        blocks = inputs["bytes"].reshape(-1, 18)
        return {"values": _launch("q4_0", len(blocks), 32, blocks).reshape(len(inputs["bytes"]), -1)}
    if algorithm == "minifloat.e4m3fn":
        codes = inputs["codes"]
        if codes.size % 16:
            raise Unsupported("codes that fill no row of 16")
        return {"values": _launch("e4m3fn", codes.size // 16, 16, codes).reshape(-1)}
    if scheme is not None and scheme.head == "nf4" and not scheme.rule.double:
        codes = _rows.rows(inputs["codes"], scheme)
        scale, levels = np.ascontiguousarray(inputs["scale"].reshape(-1)), scheme.rule.table
        values = _launch("nf4", *codes.shape, codes, scale, levels)
        return _rows.outputs(scheme, tuple(params["shape"]), values=values)
    raise Unsupported(f"{algorithm} {op}")


def _launch(name: str, programs: int, width: int, *arrays: np.ndarray) -> np.ndarray:
    version()
    import torch

    given = [torch.tensor(np.ascontiguousarray(array), device="cuda") for array in arrays]
    out = torch.empty((programs, width), dtype=torch.float32, device="cuda")
    _kernels()[name][(programs,)](*given, out, width)
    return out.cpu().numpy()


@lru_cache(maxsize=1)
def _kernels() -> dict[str, object]:
    global tl  # kernels look names up in the module
    import triton
    import triton.language as tl

    @triton.jit
    def q4_0(blocks, out, width: tl.constexpr):
        b, j = tl.program_id(0), tl.arange(0, 16)
        low, high = tl.load(blocks + b * 18).to(tl.uint16), tl.load(blocks + b * 18 + 1).to(tl.uint16)
        d = (low | (high << 8)).to(tl.float16, bitcast=True).to(tl.float32)
        q = tl.load(blocks + b * 18 + 2 + j).to(tl.int32)
        tl.store(out + b * width + j, ((q & 15) - 8).to(tl.float32) * d)
        tl.store(out + b * width + 16 + j, ((q >> 4) - 8).to(tl.float32) * d)

    @triton.jit
    def nf4(codes, scale, levels, out, width: tl.constexpr):
        g, j = tl.program_id(0), tl.arange(0, width)
        level = tl.load(levels + tl.load(codes + g * width + j).to(tl.int32))
        tl.store(out + g * width + j, level * tl.load(scale + g))

    @triton.jit
    def e4m3fn(codes, out, width: tl.constexpr):
        at = tl.program_id(0) * width + tl.arange(0, width)
        tl.store(out + at, tl.load(codes + at).to(tl.float8e4nv, bitcast=True).to(tl.float32))

    return {"q4_0": q4_0, "nf4": nf4, "e4m3fn": e4m3fn}
