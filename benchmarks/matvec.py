"""How fast each type is read when one token is multiplied: `python -m benchmarks.matvec`.

    GB/s        bytes of the packed matrix / median time of one product y = W x, the activations encoded before
    of read     GB/s as a part of what a plain sum of as many bytes reaches with as many threads, measured right after

The matrix is larger than any cache, its rows are 2048 weights wide, and its blocks are random bytes but for their float
scales. The result is not looked at here: tests/runtime/test_block_kernels.py does that.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.comparison import Spread
from refquant.errors import QuantError
from refquant.gguf import FORMATS
from runtime.arena import Arena
from runtime.bandwidth import read_bandwidth
from runtime.cores import physical_cores
from runtime.kernels import PRODUCTS, activations, bf16, gemm, gemm_super
from runtime.kernels.pack import GROUP, interleave_numpy
from runtime.program import Program
from runtime.simd.tier import TIER
from runtime.workers import Crew

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "BF16"]
TYPES += ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
WIDTH = 2048  # weights of a row
MEGABYTES = 192
WARM = 2  # products that are not counted
ENCODERS = {activations.Q8_0: activations.q8_0_numpy, activations.Q8_K: activations.q8_k_numpy}


@dataclass(frozen=True, slots=True)
class Rate:
    """One row of the table."""

    type: str
    threads: int
    bits_per_weight: float
    gigabytes_per_second: Spread
    gigaweights_per_second: float
    of_read: float

    def as_line(self) -> str:
        """As Markdown."""
        cells = [self.type, str(self.threads), f"{self.bits_per_weight:.2f}", self.gigabytes_per_second.text(1)]
        return f"| {' | '.join([*cells, f'{self.gigaweights_per_second:.1f}', f'{100 * self.of_read:.0f} %'])} |"


HEAD = "| type | threads | bits | GB/s | Gweights/s | of read |\n| --- | ---: | ---: | ---: | ---: | ---: |"


def packed_matrix(name: str, megabytes: int) -> np.ndarray:
    """Groups of 32 rows of WIDTH weights, (groups, bytes of one) uint8: one group, repeated."""
    form, rng = FORMATS[name], np.random.default_rng(0)
    if form.is_scalar:
        blocks = form.encode(rng.standard_normal((GROUP, WIDTH, 1), np.float32)).view(np.uint8)
    else:
        blocks = rng.integers(0, 256, (GROUP, WIDTH // form.values, form.block_bytes), np.uint8)
    for field in form.layout.names or ():
        if form.layout[field].kind == "f":
            blocks.view(form.layout)[field] = 0.01
    group = interleave_numpy(blocks.reshape(GROUP, -1), form.block_bytes, PRODUCTS[name].fields)
    count = max(1, (megabytes << 20) // group.nbytes)
    packed = Arena().take(count * group.nbytes).reshape(count, -1)
    packed[:] = group
    return packed


def product_of_one_token(name: str, packed: np.ndarray, threads: int) -> tuple[Program, np.ndarray]:
    """A program of the one product, and y, which it writes."""
    product, stride, rng = PRODUCTS[name], len(packed) * GROUP * 4, np.random.default_rng(1)
    x, y = rng.standard_normal((1, WIDTH), np.float32), np.zeros(stride // 4, np.float32)
    program = Program()
    if product.form == activations.BF16:
        buffers, numbers = [packed, bf16.encode_numpy(x), None, None, y, None], [WIDTH, stride, 0, 0, WIDTH * 2]
    elif product.form:
        codes, e, sums, halves = ENCODERS[product.form](x)
        codes = activations.raised_numpy(codes) if product.matvec in gemm_super.RAISED else codes
        panels = np.zeros(gemm.PANEL * threads, np.uint8)  # for types that multiply one token as they do many
        buffers = [packed, codes, e, halves if product.halves else sums, y, panels, product.tables]
        numbers = [WIDTH, stride, product.unpack, product.bias, 0]
    else:
        buffers, numbers = [packed, x, None, None, y, None], [WIDTH, stride, 0, 0, WIDTH * 4]
    program.add(product.matvec, buffers, numbers, fixed=len(packed))
    return program, y


def rate(name: str, threads: int, repeats: int, megabytes: int) -> Rate:
    """Measure one type."""
    packed = packed_matrix(name, megabytes)
    program, _ = product_of_one_token(name, packed, threads)
    table = program.table()
    crew, seconds = Crew(threads), []
    try:
        for _ in range(WARM + repeats):
            began = time.perf_counter()
            crew.run(table, 0, 1, 1, 0)
            seconds.append(time.perf_counter() - began)
    finally:
        crew.close()
    speeds = [packed.nbytes / s / 1e9 for s in seconds[WARM:]]
    bits = 8 * packed.nbytes / (len(packed) * GROUP * WIDTH)
    median = statistics.median(speeds)
    read = read_bandwidth(packed.nbytes, threads, repeats) / 1e9
    return Rate(name, threads, bits, Spread.of(speeds), 8 * median / bits, median / read)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parse(argv)
    rates = []
    print(f"SIMD tier {TIER}\n\n{HEAD}", flush=True)
    try:
        for name in arguments.types:
            for threads in arguments.threads:
                rates.append(rate(name, threads, arguments.repetitions, arguments.megabytes))
                print(rates[-1].as_line(), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"tier": TIER, "rates": [asdict(r) for r in rates]}, indent=2) + "\n")
    except (QuantError, OSError) as error:
        print(f"matvec: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.matvec",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cores = physical_cores()
    p.add_argument("--types", type=_types, default=TYPES, metavar="A,B", help="of matrices (default: common ones)")
    p.add_argument(
        "-t", "--threads", type=_whole, default=sorted({1, cores}), metavar="N,M", help="(1 and the physical cores)"
    )
    p.add_argument("-r", "--repetitions", type=int, default=7, metavar="N", help="products that are timed (7)")
    p.add_argument("--megabytes", type=int, default=MEGABYTES, metavar="N", help=f"of a matrix ({MEGABYTES})")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    arguments = p.parse_args(argv)
    if min([*arguments.threads, arguments.repetitions, arguments.megabytes]) < 1:
        p.error("-t, -r and --megabytes: expected 1 or more")
    return arguments


def _whole(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _types(text: str) -> list[str]:
    names = [*PRODUCTS] if text == "all" else text.split(",")
    for name in names:
        if name not in PRODUCTS:
            raise argparse.ArgumentTypeError(f"{name!r}, expected some of {','.join(PRODUCTS)}, or all")
    return names


if __name__ == "__main__":
    sys.exit(main())
