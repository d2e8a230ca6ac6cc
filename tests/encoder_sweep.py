"""Compare our encoders with ggml's C, a million weights at a time: `make encoders-full`, or

    REFQUANT_GGML_BASE=libggml-base.so python tests/encoder_sweep.py [TYPE ...]

For every type, kind of weights and importance matrix: the share of blocks whose bytes are equal. Trained weights are
those of tiny-qwen2 below REFQUANT_TEST_DATA; without it they are left out. Ends with status 1 if any block differs.
A block of an I-quant on which ggml aborts must be refused; where there are such blocks, 65,536 weights are taken.
A library whose ggml-quants.c fuses multiply-add differs, in a third of the blocks of Q5_K; see build_ggml_base.sh. Run
it from the root of the project, with the root and tests/ on PYTHONPATH.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ggml_aborts
import ggml_base
import numpy as np

from refquant.errors import RangeError
from refquant.gguf.formats import FORMATS, BlockFormat, quantize

WEIGHTS, ROW = 1 << 20, 1 << 11
ROWS_WITH_ABORTS = 32  # of a kind of weights on which ggml aborts


def kinds() -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows (., ROW) of float32."""
    rng = np.random.default_rng(5)
    bell = rng.standard_normal(WEIGHTS, dtype=np.float32)
    exponents = rng.integers(-149, 120, WEIGHTS // 32).repeat(32)
    drawn = {
        "Gaussian": bell,
        "heavy-tailed": rng.standard_t(2, WEIGHTS),
        "constant": bell[::256].repeat(256),
        "zero": np.where(bell > 0, 0.0, -0.0),
        "mostly zero": np.where(rng.random(WEIGHTS) < 0.02, bell, 0),
        "ties": rng.integers(-16, 17, WEIGHTS) / 8,
        "positive": np.abs(bell) + 0.5,
        "huge": bell * 2.0**100,
        "squares overflow": bell * 2.0**64,
        "tiny": bell * 2.0**-130,
        "float16 edge": bell * 2.0**-24 * rng.integers(1, 64, WEIGHTS // 32).repeat(32),
        "every exponent": np.ldexp(bell, exponents),
    }
    for name, x in drawn.items():
        yield name, x.astype(np.float32).reshape(-1, ROW)
    root = os.environ.get("REFQUANT_TEST_DATA")
    if root:
        yield "trained", trained(Path(root) / "models" / "tiny-qwen2")


def trained(folder: Path) -> np.ndarray:
    """Weights of the first matrices of a folder of BF16 .safetensors files."""
    parts = []
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        for name, tensor in header.items():
            if name != "__metadata__" and len(tensor["shape"]) == 2:
                assert tensor["dtype"] == "BF16", f"{path}: {name}: dtype = {tensor['dtype']}, expected BF16"
                first, last = (8 + length + offset for offset in tensor["data_offsets"])
                words = np.frombuffer(data[first:last], "<u2")[: WEIGHTS // 8].astype(np.uint32)
                parts.append((words << np.uint32(16)).view(np.float32))
    x = np.concatenate(parts)
    return x[: min(len(x), WEIGHTS) // ROW * ROW].reshape(-1, ROW)


def importances() -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(6)
    squares = rng.standard_normal(ROW, dtype=np.float32) ** 2
    holes = np.where((rng.random(ROW) < 0.3) | (rng.random(ROW // 32).repeat(32) < 0.2), np.float32(0), squares)
    return {"none": None, "squares": squares, "with zeros": holes}


def compare(
    ggml: ggml_base.GGML, fmt: BlockFormat, x: np.ndarray, imatrix: np.ndarray | None
) -> tuple[int, int, float]:
    """Blocks, equal blocks, seconds that ours took. A block that both refuse is equal."""
    if fmt.name.startswith("IQ"):
        ref, aborted = ggml_aborts.encode(ggml, fmt, x, imatrix, ROWS_WITH_ABORTS)
        x = x[: ref.size * fmt.values // fmt.block_bytes // ROW]
    else:
        ref, aborted = ggml.encode(fmt, x, imatrix).reshape(-1, fmt.block_bytes), False
    start = time.perf_counter()
    got, refused = encode(fmt, x, imatrix)
    seconds = time.perf_counter() - start
    return len(ref), int(((got == ref).all(axis=1) & (refused == aborted)).sum()), seconds


def encode(fmt: BlockFormat, x: np.ndarray, imatrix: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (blocks, block_bytes), zeros where a block is refused, and which ones are."""
    count = x.size // fmt.values
    refused = np.zeros(count, bool)
    try:
        return quantize(x, fmt.name, imatrix).reshape(count, fmt.block_bytes), refused
    except RangeError:
        got, blocks = np.zeros((count, fmt.block_bytes), np.uint8), x.reshape(count, fmt.values)
    for i, block in enumerate(blocks):
        first = i * fmt.values % ROW
        try:
            got[i] = quantize(block, fmt.name, None if imatrix is None else imatrix[first : first + fmt.values])
        except RangeError:
            refused[i] = True
    return got, refused


def main() -> int:
    path = os.environ.get("REFQUANT_GGML_BASE")
    if not path:
        print("REFQUANT_GGML_BASE is not set: expected the path of a libggml-base.so", file=sys.stderr)
        return 2
    ggml = ggml_base.GGML(path)
    formats = [FORMATS[name] for name in sys.argv[1:]] or [f for f in FORMATS.values() if f.encode or f.encode_weighted]
    data, failed = dict(kinds()), False
    print(f"{'type':<8} {'imatrix':<11} {'blocks':>8} {'equal':>8}  {'M weights/s':>11}  kinds that differ", flush=True)
    for fmt in formats:
        for matrix, imatrix in importances().items():
            if imatrix is None and fmt.encode is None:
                continue
            found = {kind: compare(ggml, fmt, x, imatrix) for kind, x in data.items()}
            blocks, equal = (sum(result[i] for result in found.values()) for i in (0, 1))
            speed = data["Gaussian"].size / found["Gaussian"][2] / 1e6
            differ = [f"{kind} {100 * same / of:.2f}" for kind, (of, same, _) in found.items() if same < of]
            # Rounded down, so that 100.00 means every block.
            share = np.floor(10000 * equal / blocks) / 100
            print(f"{fmt.name:<8} {matrix:<11} {blocks:8} {share:8.2f}  {speed:11.2f}  {', '.join(differ)}", flush=True)
            failed |= equal < blocks
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
