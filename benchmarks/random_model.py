"""Models of public shapes with random weights, to measure speed: `python -m benchmarks.random_model qwen2.5-1.5b Q4_0`.

Blocks are random bytes but for their float scales, which give the weights a mean of 0 and a root mean square of
1 / sqrt(n_in), so that activations stay near 1 and nothing overflows. No encoder runs, and tensors are filled slab by
slab in the mapped file: memory stays below that of the largest tensor. The same arguments give the same bytes.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.random_vocabulary import Metadata, random_vocabulary
from benchmarks.shapes import MIXTURES, SHAPES, Shape
from benchmarks.type_mix import MIXES, lookup, matrix_type
from refquant import gguf
from refquant.errors import GGUFError, QuantError, RangeError
from refquant.gguf import FORMATS, BlockFormat

RECIPE = 1  # a file of another recipe is made anew; count it up when the bytes change
SLAB = 1 << 22  # bytes that are made at a time
SAMPLE = 4096  # blocks by which the size of random codes is known
LLAMA3_FACTOR, LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT = 32, 1, 4, 8192


def default_folder() -> Path:
    """Where models are kept: `benchmarks` in this user's cache directory."""
    from runtime.jit import user_cache_directory

    return user_cache_directory() / "benchmarks"


def random_model(shape: Shape, mix: str, folder: Path) -> Path:
    """Make `<shape>-<layers>L-<mix>.gguf` in `folder` unless it is there, and return its path."""
    path = folder / f"{shape.name}-{shape.n_layer}L-{mix}.gguf"
    metadata = _metadata(shape, mix)
    if _is_current(path, metadata["general.description"][1]):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(8)}.gguf"
    try:
        _write_zeros(temporary, metadata, _tensors(shape, mix))
        _fill(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def one_layer(shape: Shape) -> Shape:
    """The same widths and vocabulary with one layer: what a model costs besides its layers."""
    return replace(shape, n_layer=1)


def _metadata(shape: Shape, mix: str) -> Metadata:
    arch, described = shape.arch, f"{shape}" if shape.experts is None else f"{shape}, {shape.experts}"
    return {
        "general.architecture": ("str", arch),
        "general.name": ("str", f"{shape.name} with random weights"),
        "general.description": ("str", f"random weights for measuring speed, recipe {RECIPE}, {described}"),
        "general.file_type": ("u32", lookup(mix).file_type),
        "general.quantization_version": ("u32", 2),
        f"{arch}.block_count": ("u32", shape.n_layer),
        f"{arch}.context_length": ("u32", shape.n_ctx),
        f"{arch}.embedding_length": ("u32", shape.n_embd),
        f"{arch}.feed_forward_length": ("u32", shape.n_ff),
        f"{arch}.attention.head_count": ("u32", shape.n_head),
        f"{arch}.attention.head_count_kv": ("u32", shape.n_head_kv),
        f"{arch}.attention.layer_norm_rms_epsilon": ("f32", shape.rms_eps),
        f"{arch}.rope.freq_base": ("f32", shape.rope_base),
        f"{arch}.rope.dimension_count": ("u32", shape.head_dim),
        f"{arch}.vocab_size": ("u32", shape.n_vocab),
        **_optional_metadata(shape),
        **random_vocabulary(shape),
    }


def _optional_metadata(shape: Shape) -> Metadata:
    """What only some architectures say."""
    arch, experts = shape.arch, shape.experts
    values = {}
    if shape.key_length is not None:
        values |= {"attention.key_length": shape.key_length, "attention.value_length": shape.key_length}
    if experts is not None:
        values |= {"expert_count": experts.n_expert, "expert_used_count": experts.n_used}
        values["expert_feed_forward_length"] = experts.n_ff
        if experts.n_ff_shared:
            values["expert_shared_feed_forward_length"] = experts.n_ff_shared
    return {f"{arch}.{key}": ("u32", value) for key, value in values.items()}


def _tensors(shape: Shape, mix: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape in weights, type) in the order of the file."""

    def matrix(role: str, rows: int, n_in: int, layer: int = 0, *, copies: tuple[int, ...] = ()):
        kind = matrix_type(mix, role, n_in, layer, shape.n_layer, shape.n_group, shape.tied)
        name = role if role in ("token_embd", "output") else f"blk.{layer}.{role}"
        return f"{name}.weight", (*copies, rows, n_in), kind

    def feed_forward(layer: int, n_ff: int, end: str = "", copies: tuple[int, ...] = ()):
        yield matrix(f"ffn_gate{end}", n_ff, width, layer, copies=copies)
        yield matrix(f"ffn_up{end}", n_ff, width, layer, copies=copies)
        yield matrix(f"ffn_down{end}", width, n_ff, layer, copies=copies)

    width, heads, kv = shape.n_embd, shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    experts = shape.experts
    yield matrix("token_embd", shape.n_vocab, width)
    for i in range(shape.n_layer):
        yield f"blk.{i}.attn_norm.weight", (width,), "F32"
        for role, rows in (("attn_q", heads), ("attn_k", kv), ("attn_v", kv)):
            yield matrix(role, rows, width, i)
            if shape.biases:
                yield f"blk.{i}.{role}.bias", (rows,), "F32"
            if shape.head_norms and role != "attn_v":
                yield f"blk.{i}.{role}_norm.weight", (shape.head_dim,), "F32"
        yield matrix("attn_output", width, heads, i)
        yield f"blk.{i}.ffn_norm.weight", (width,), "F32"
        if experts is None:
            yield from feed_forward(i, shape.n_ff)
            continue
        yield f"blk.{i}.ffn_gate_inp.weight", (experts.n_expert, width), "F32"
        yield from feed_forward(i, experts.n_ff, "_exps", (experts.n_expert,))
        if experts.n_ff_shared:
            yield f"blk.{i}.ffn_gate_inp_shexp.weight", (width,), "F32"
            yield from feed_forward(i, experts.n_ff_shared, "_shexp")
    yield "output_norm.weight", (width,), "F32"
    if not shape.tied:
        yield matrix("output", shape.n_vocab, width)
    if shape.llama3_rope:
        yield "rope_freqs.weight", (shape.head_dim // 2,), "F32"


def _write_zeros(path: Path, metadata: Metadata, tensors: Iterator[tuple[str, tuple[int, ...], str]]) -> None:
    arrays = {}
    for name, dims, kind in tensors:
        fmt = FORMATS[kind]
        zero = np.zeros((), fmt.layout if fmt.is_scalar else np.uint8)
        stored = dims if fmt.is_scalar else (*dims[:-1], dims[-1] // fmt.values * fmt.block_bytes)
        arrays[name] = np.broadcast_to(zero, stored), kind  # takes no memory before it is written
    values = {key: value for key, (_, value) in metadata.items()}
    gguf.write(path, values, arrays, types={key: kind for key, (kind, _) in metadata.items()})


def _fill(path: Path) -> None:
    with gguf.open(path) as file:
        base = float(file.metadata[f"{file.metadata['general.architecture']}.rope.freq_base"])
        places = [(t.name, t.shape, FORMATS[t.type], t.offset, t.nbytes) for t in file.tensors.values()]
    for seed, (name, dims, fmt, offset, nbytes) in enumerate(places):
        data = np.memmap(path, np.uint8, "r+", offset, (nbytes,))
        if len(dims) == 1:
            data[:] = _vector(name, dims[0], base, np.random.PCG64(seed)).view(np.uint8)
        else:
            size = dims[-1] ** -0.5
            slab = SLAB // fmt.block_bytes * fmt.block_bytes
            for part, begin in enumerate(range(0, nbytes, slab)):
                end = min(begin + slab, nbytes)
                data[begin:end] = _blocks(fmt, (end - begin) // fmt.block_bytes, size, np.random.PCG64([seed, part]))
        data.flush()


def _vector(name: str, n: int, rope_base: float, bits: np.random.PCG64) -> np.ndarray:
    """Norms around 1, biases around 0, Llama 3's divisors of the rope frequencies, or the gate of a shared expert: a
    matrix of one row. (n,) float32."""
    if name == "rope_freqs.weight":
        return _llama3_divisors(n, rope_base)
    if name.endswith("_shexp.weight"):
        return ((12 / n) ** 0.5 * (_uniform(n, bits) - 0.5)).astype(np.float32)
    return (0.2 * (_uniform(n, bits) - 0.5) + (0 if name.endswith(".bias") else 1)).astype(np.float32)


def _llama3_divisors(n: int, base: float) -> np.ndarray:
    """1 for waves that the old context holds often, the factor for longer ones than it, a blend in between."""
    wavelength = 2 * np.pi * base ** (np.arange(n) / n)
    turns = LLAMA3_CONTEXT / wavelength
    blend = np.clip((turns - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW), 0, 1)
    return (1 / ((1 - blend) / LLAMA3_FACTOR + blend)).astype(np.float32)


def _blocks(fmt: BlockFormat, count: int, size: float, bits: np.random.PCG64) -> np.ndarray:
    """uint8 (count * block_bytes,): weights of root mean square `size` and mean 0."""
    if fmt.is_scalar:
        x = (size * np.sqrt(12)) * (_uniform(count, bits) - 0.5)
        return fmt.encode(x.astype(np.float32)[:, None]).reshape(-1).view(np.uint8)
    data = _random_bytes(count * fmt.block_bytes, bits).view(fmt.layout)
    scales = _scales(fmt)
    # Codes such as -8..7 have a mean of their own: with a sign for each block, the weights have none.
    sign = np.where(np.signbit(data["d"]), np.float32(-1), np.float32(1)) if len(scales) == 1 else np.float32(1)
    for name, value in scales.items():
        data[name] = np.float32(value * size) * sign
    return data.view(np.uint8)


_SCALES: dict[str, dict[str, float]] = {}


def _scales(fmt: BlockFormat) -> dict[str, float]:
    """What the float fields d, and m or dmin, must hold for random codes to have a mean square of 1 and a mean of 0."""
    if fmt.name not in _SCALES:
        sample = _random_bytes(SAMPLE * fmt.block_bytes, np.random.PCG64(0)).view(fmt.layout)
        floats = [name for name in fmt.layout.names if fmt.layout[name].kind == "f"]

        def decoded(**values: float) -> np.ndarray:
            for name in floats:
                sample[name] = values.get(name, 0)
            return fmt.decode(sample)

        values = {"d": 1.0}
        for minimum in set(floats) - {"d"}:
            values[minimum] = -float(decoded(d=1).mean() / decoded(**{minimum: 1}).mean())
        unit = float(np.sqrt(np.square(decoded(**values)).mean()))
        _SCALES[fmt.name] = {name: value / unit for name, value in values.items()}
    return _SCALES[fmt.name]


def _random_bytes(count: int, bits: np.random.PCG64) -> np.ndarray:
    return bits.random_raw(-(-count // 8)).view(np.uint8)[:count]


def _uniform(count: int, bits: np.random.PCG64) -> np.ndarray:
    """float32 in [0, 1), multiples of 2^-16: raw bits are the same in every version of NumPy."""
    return _random_bytes(2 * count, bits).view(np.uint16) / np.float32(65536)


def _is_current(path: Path, description: str) -> bool:
    try:
        with gguf.open(path) as file:
            return file.metadata.get("general.description") == description
    except GGUFError:
        return False


def main(argv: list[str] | None = None) -> int:
    """The command line: make models and print their paths."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.random_model", description=__doc__.partition("\n")[0])
    shapes = SHAPES | MIXTURES
    p.add_argument("shape", choices=tuple(shapes), help="whose configuration")
    p.add_argument("mix", nargs="+", choices=tuple(MIXES), metavar="MIX", help=", ".join(MIXES))
    p.add_argument("--layers", type=int, metavar="N", help="fewer or more layers than the shape has")
    p.add_argument("--folder", type=Path, help="where to (default: the user's cache directory)")
    arguments = p.parse_args(argv)
    shape = shapes[arguments.shape]
    try:
        if arguments.layers is not None:
            if not 1 <= arguments.layers <= 512:
                raise RangeError(f"random_model: layers = {arguments.layers}, expected 1..512")
            shape = replace(shape, n_layer=arguments.layers)
        for mix in arguments.mix:
            print(random_model(shape, mix, arguments.folder or default_folder()))
    except (QuantError, OSError) as error:
        print(f"random_model: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
