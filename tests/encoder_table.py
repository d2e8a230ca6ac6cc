"""docs/encoders.md: how many blocks of every type come out as in which build of ggml, and how fast.

    python tests/encoder_table.py stock=libggml-base.so strict=strict.so fused=fused.so > docs/encoders.md

The builds are those of `build_ggml_base.sh`, and a library as it is installed. Each is compared in a process of its
own. Run it from the root of the project, with the root and tests/ on PYTHONPATH; trained weights are those of
tiny-qwen2 below REFQUANT_TEST_DATA, without which they are left out. The compiled encoders stand for both of ours: the
tests say that they give the same bytes. `encoder_sweep.py` compares the NumPy ones, on more kinds of weights.
"""

import json
import subprocess
import sys
import time

import encoder_sweep
import ggml_base
import numpy as np

from refquant.gguf import FORMATS
from runtime.encoders import ENCODERS, RowEncoder
from runtime.processor import processor

KINDS = ("Gaussian", "heavy-tailed", "trained")
SLOW = ("IQ1", "IQ2", "IQ3")
ROWS, FEW = 128, 16  # of 2048 weights, of a kind
PAGE = """\
# Encoders, ggml's bytes, and how fast

Every encoder of `refquant.gguf` (NumPy) and of `runtime.encoders` (compiled) gives the bytes of `ggml_quantize_chunk`.
Which bytes those are depends on the build: where a compiler fuses `a * b + c` into one rounding, scale searches end
elsewhere. Stock builds on x86-64 do not, and they are the norm here. The table has the share of blocks that are equal,
rounded down, without and with an importance matrix, on {weights} weights of each kind ({few} for IQ1, IQ2, IQ3):
{kinds}.

{builds}

{equality}

## Speed

One thread, {processor}, Gaussian weights: millions of weights a second, ours compiled / `stock`.

{speed}

This page is the output of `python tests/encoder_table.py`. `make encoders-full` compares the NumPy encoders on 13 kinds
of weights (constant, zero, ties, huge, tiny ...), `make bench-quantize` whole files with llama.cpp's quantizer.
"""
BUILDS = {
    "stock": "`stock`: libggml-base as llama-cpp-python installs it",
    "strict": "`strict`: ggml-quants.c with gcc -O3 -ffp-contract=off",
    "fused": "`fused`: ggml-quants.c with gcc -O3 -march=native, which fuses where the compiler likes",
}


def matrices(name: str) -> list[str]:
    """ "none" and "imatrix", as far as the type has them."""
    encoder = ENCODERS[name]
    return [m for m, f in (("none", encoder.plain), ("imatrix", encoder.weighted)) if f is not None]


def weights() -> dict[str, np.ndarray]:
    """Rows of each kind."""
    return {kind: x[:ROWS] for kind, x in encoder_sweep.kinds() if kind in KINDS}


def compare(path: str) -> dict[str, dict[str, list]]:
    """{type: {"none" or "imatrix": [blocks, equal blocks, our seconds, their seconds]}}; seconds of Gaussian rows."""
    ggml, data, found = ggml_base.GGML(path), weights(), {}
    importance = encoder_sweep.importances()["squares"]
    for name in ENCODERS:
        fmt, found[name] = FORMATS[name], {}
        for matrix in matrices(name):
            imatrix = importance if matrix == "imatrix" else None
            encode = RowEncoder(name, encoder_sweep.ROW, imatrix)
            blocks = equal = 0
            for kind, x in data.items():
                x = np.ascontiguousarray(x[:FEW] if name.startswith(SLOW) else x)
                encode(x[:1])  # tables are made on first use
                ggml.encode(fmt, x[:1], imatrix)
                start = time.perf_counter()
                got = encode(x).reshape(-1, fmt.block_bytes)
                middle = time.perf_counter()
                ref = ggml.encode(fmt, x, imatrix).reshape(got.shape)
                seconds = middle - start, time.perf_counter() - middle
                blocks, equal = blocks + len(ref), equal + int((got == ref).all(axis=1).sum())
                if kind == "Gaussian":
                    rates = [x.size / each / 1e6 for each in seconds]
            found[name][matrix] = [blocks, equal, *rates]
    return found


def share(blocks: int, equal: int, *_) -> str:
    """Percent, rounded down, so that 100.00 means every block."""
    return f"{np.floor(10000 * equal / blocks) / 100:.2f}"


def page(results: dict[str, dict]) -> str:
    """The whole of docs/encoders.md."""
    columns = [(build, matrix) for build in results for matrix in ("none", "imatrix")]
    lines = ["| type | " + " | ".join(f"{build}, {matrix}" for build, matrix in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name in ENCODERS:
        cells = [share(*results[b][name][m]) if m in results[b][name] else "" for b, m in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    first = next(iter(results.values()))
    speed = ["| type | none | imatrix |", "|---|---|---|"]
    for name in ENCODERS:
        cells = [
            f"{first[name][m][2]:.1f} / {first[name][m][3]:.1f}" if m in first[name] else ""
            for m in ("none", "imatrix")
        ]
        speed.append(f"| {name} | {' | '.join(cells)} |")
    return PAGE.format(
        weights=f"{ROWS * encoder_sweep.ROW:,}",
        few=f"{FEW * encoder_sweep.ROW:,}",
        kinds=", ".join(weights()),
        builds="\n".join(f"- {BUILDS.get(build, build)}" for build in results),
        equality="\n".join(lines),
        speed="\n".join(speed),
        processor=processor()[0],
    )


def main() -> int:
    """Print the page; with `one PATH`, what a single library gives, as JSON."""
    if sys.argv[1] == "one":
        json.dump(compare(sys.argv[2]), sys.stdout)
        return 0
    results = {}
    for argument in sys.argv[1:]:
        build, _, path = argument.partition("=")
        done = subprocess.run([sys.executable, __file__, "one", path], stdout=subprocess.PIPE, check=True)
        results[build] = json.loads(done.stdout)
    sys.stdout.write(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
