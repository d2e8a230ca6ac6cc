"""Encoding and decoding a matrix in each format, ours and other people's in turn, on the CPU.

    python -m benchmarks.formats [--size 4096] [--rounds 5] [--only mxfp4,nvfp4]

Time    encode + decode of a float32 (size, size) matrix of unit Gaussians, codes one a byte; the two are measured in
        turn and the least of the rounds counts. ratio = ours / theirs, below 1 is faster.
Memory  the most that ours has allocated at a time, in units of the input (tracemalloc; the input is not counted).
Peers   run with the threads they choose themselves, ours has one. A peer that is not installed is left out.
Standard output gets Markdown. A family of formats is a list of cases; the last line of CASES joins them.
"""

import argparse
import importlib.util
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refquant import quantize

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A scheme of ours, and a peer: a function that takes the matrix and returns what is to be timed."""

    scheme: str
    peer: str
    package: str
    prepare: Callable[[np.ndarray], Step]


def ml_dtypes_cast(name: str) -> Callable[[np.ndarray], Step]:
    """A native cast there and back."""

    def prepare(x: np.ndarray) -> Step:
        import ml_dtypes

        dtype = getattr(ml_dtypes, name)
        return lambda: x.astype(dtype).astype(np.float32)

    return prepare


def torch_cast(name: str) -> Callable[[np.ndarray], Step]:
    """A native cast there and back."""

    def prepare(x: np.ndarray) -> Step:
        import torch

        t, dtype = torch.from_numpy(x), getattr(torch, name)
        return lambda: t.to(dtype).to(torch.float32)

    return prepare


def torchao_fp8(x: np.ndarray) -> Step:
    """E4M3FN with a scale for each row."""
    import torch
    from torchao.quantization import quant_primitives as p

    t, block = torch.from_numpy(x), [1, x.shape[1]]

    def step():
        scale = p._choose_scale_float8(t, block)
        return p._dequantize_affine_float8(p._quantize_affine_float8(t, scale), scale)

    return step


def torchao_mx(element: str, mode: str = "FLOOR") -> Callable[[np.ndarray], Step]:
    """Microscaling by to_mx and to_dtype."""

    def prepare(x: np.ndarray) -> Step:
        import torch
        from torchao.prototype.mx_formats import mx_tensor

        t, dtype = torch.from_numpy(x), getattr(torch, element, element)
        rule = mx_tensor.ScaleCalculationMode[mode]

        def step():
            scale, data = mx_tensor.to_mx(t, dtype, 32, rule)
            return mx_tensor.to_dtype(data, scale, dtype, 32, torch.float32)

        return step

    return prepare


def gguf_mxfp4(x: np.ndarray) -> Step:
    """gguf-py, the NumPy package of llama.cpp."""
    import gguf

    kind = gguf.GGMLQuantizationType.MXFP4
    return lambda: gguf.dequantize(gguf.quantize(x, kind), kind)


def torchao_nvfp4(x: np.ndarray) -> Step:
    """NVFP4 with a scale of the tensor; decoded by its own unpacking and one product."""
    import torch
    from torchao.prototype.mx_formats import kernels, nvfp4_tensor

    t = torch.from_numpy(x)

    def step():
        tensor = nvfp4_tensor.per_tensor_amax_to_scale(t.abs().max())
        scale, data = nvfp4_tensor.nvfp4_quantize(t, 16, tensor)
        values = kernels.f4_unpacked_to_f32(kernels.unpack_uint4(data)).view(*scale.shape, 16)
        return values * (scale.to(torch.float32) * tensor).unsqueeze(-1)

    return step


def compressed_tensors_nvfp4(x: np.ndarray) -> Step:
    """NVFP4 by the functions that its compressor calls."""
    import torch
    from compressed_tensors.compressors.nvfp4 import helpers
    from compressed_tensors.quantization import QuantizationArgs, utils
    from compressed_tensors.quantization.lifecycle import forward

    t, e4m3 = torch.from_numpy(x), torch.float8_e4m3fn
    args = QuantizationArgs(
        num_bits=4,
        type="float",
        symmetric=True,
        strategy="tensor_group",
        group_size=16,
        scale_dtype=e4m3,
        zp_dtype=e4m3,
    )

    def step():
        g, groups = utils.generate_gparam(t.min(), t.max()), t.unflatten(-1, (-1, 16))
        scale, _ = utils.calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=g)
        data = helpers.pack_fp4_to_uint8(forward.quantize(t, scale, None, args, global_scale=g))
        values = helpers.unpack_fp4_from_uint8(data, *t.shape, torch.float32)
        return forward.dequantize(values, scale, None, args, global_scale=g)

    return step


def bitsandbytes_4bit(kind: str, nested: bool = False) -> Callable[[np.ndarray], Step]:
    """NF4 or FP4 in blocks of 64, nested: with double quantization; packed two codes a byte."""

    def prepare(x: np.ndarray) -> Step:
        import torch
        from bitsandbytes import functional

        t = torch.from_numpy(x)
        return lambda: functional.dequantize_4bit(
            *functional.quantize_4bit(t, blocksize=64, quant_type=kind, compress_statistics=nested)
        )

    return prepare


def bitsandbytes_8bit(x: np.ndarray) -> Step:
    """The dynamic map in blocks of 256."""
    import torch
    from bitsandbytes import functional

    t = torch.from_numpy(x)
    return lambda: functional.dequantize_blockwise(*functional.quantize_blockwise(t, blocksize=256))


def torchao_linear(mapping: str, low: int, high: int) -> Callable[[np.ndarray], Step]:
    """Groups of 128."""

    def prepare(x: np.ndarray) -> Step:
        import torch
        from torchao.quantization import quant_primitives as p

        t, block, dtype = torch.from_numpy(x), (1, 128), torch.int8 if low < 0 else torch.uint8

        def step():
            scale, zero = p.choose_qparams_affine(t, p.MappingType[mapping], block, dtype, low, high)
            codes = p.quantize_affine(t, block, scale, zero, dtype, low, high)
            return p.dequantize_affine(codes, block, scale, zero, dtype, low, high)

        return step

    return prepare


def compressed_tensors_int4(x: np.ndarray) -> Step:
    """Symmetric groups of 128."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, utils
    from compressed_tensors.quantization.lifecycle import forward

    t, args = torch.from_numpy(x), QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=128)

    def step():
        groups = t.unflatten(-1, (-1, 128))
        scale, zero = utils.calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        return forward.dequantize(forward.quantize(t, scale, zero, args, dtype=torch.int8), scale, zero, args)

    return step


SMALL_FLOATS = [
    Case("fp8_e4m3fn-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float8_e4m3fn")),
    Case("fp8_e4m3fn-cast", "torch", "torch", torch_cast("float8_e4m3fn")),
    Case("fp8_e5m2-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float8_e5m2")),
    Case("fp8_e5m2-cast", "torch", "torch", torch_cast("float8_e5m2")),
    Case("fp8_e4m3fnuz-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float8_e4m3fnuz")),
    Case("fp8_e3m4-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float8_e3m4")),
    Case("fp6_e2m3-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float6_e2m3fn")),
    Case("fp4_e2m1-cast", "ml_dtypes", "ml_dtypes", ml_dtypes_cast("float4_e2m1fn")),
    Case("fp8_e4m3fn-token", "torchao", "torchao", torchao_fp8),
    Case("mxfp4@torchao", "torchao", "torchao", torchao_mx("float4_e2m1fn_x2")),
    Case("mxfp4@torchao-rceil", "torchao", "torchao", torchao_mx("float4_e2m1fn_x2", "RCEIL")),
    Case("mxfp4", "gguf-py", "gguf", gguf_mxfp4),
    Case("mxfp6_e2m3@torchao", "torchao", "torchao", torchao_mx("fp6_e2m3")),
    Case("mxfp8_e4m3@torchao", "torchao", "torchao", torchao_mx("float8_e4m3fn")),
    Case("mxfp8_e5m2@torchao", "torchao", "torchao", torchao_mx("float8_e5m2")),
    Case("nvfp4@torchao", "torchao", "torchao", torchao_nvfp4),
    Case("nvfp4@compressed-tensors", "compressed-tensors", "compressed_tensors", compressed_tensors_nvfp4),
]
CODEBOOKS = [
    Case("nf4", "bitsandbytes", "bitsandbytes", bitsandbytes_4bit("nf4")),
    Case("nf4-dq@bitsandbytes-cpu", "bitsandbytes", "bitsandbytes", bitsandbytes_4bit("nf4", nested=True)),
    Case("bnb_fp4@bitsandbytes-cpu", "bitsandbytes", "bitsandbytes", bitsandbytes_4bit("fp4")),
    Case("dynamic8", "bitsandbytes", "bitsandbytes", bitsandbytes_8bit),
    Case("dynamic8@bitsandbytes-cpu", "bitsandbytes", "bitsandbytes", bitsandbytes_8bit),
]
LINEAR = [
    Case("int4-g128@torchao", "torchao", "torchao", torchao_linear("SYMMETRIC", -8, 7)),
    Case("uint4-g128@torchao", "torchao", "torchao", torchao_linear("ASYMMETRIC", 0, 15)),
    Case("int4-g128@compressed-tensors", "compressed-tensors", "compressed_tensors", compressed_tensors_int4),
]
CASES = [*SMALL_FLOATS, *CODEBOOKS, *LINEAR]


def seconds(step: Step) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def alternating(ours: Step, theirs: Step, rounds: int) -> tuple[float, float]:
    """The least seconds of each, after one call of each that does not count."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return min(a for a, _ in pairs), min(b for _, b in pairs)


def peak_memory(step: Step, x: np.ndarray) -> float:
    """Bytes that `step` held at most, over the bytes of x."""
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / x.nbytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="schemes that begin with one of these, comma separated")
    arguments = parser.parse_args()
    x = np.random.default_rng(arguments.size).standard_normal((arguments.size, arguments.size), dtype=np.float32)
    print("| format | peer | ours, s | theirs, s | ratio | memory |\n|---|---|---:|---:|---:|---:|")
    for case in CASES:
        if not case.scheme.startswith(tuple(arguments.only.split(","))) or not importlib.util.find_spec(case.package):
            continue

        def ours(scheme: str = case.scheme) -> np.ndarray:
            return quantize(x, scheme).dequantize()

        a, b = alternating(ours, case.prepare(x), arguments.rounds)
        memory = peak_memory(ours, x)
        print(f"| {case.scheme} | {case.peer} | {a:.3f} | {b:.3f} | {a / b:.2f} | {memory:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
