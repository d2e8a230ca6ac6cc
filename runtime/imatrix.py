"""Collect an importance matrix: `python -m runtime.imatrix MODEL.gguf -f text.txt -o imatrix.gguf`.

What llama-imatrix does: sums of squares of the inputs of every matrix over a text, in its current GGUF layout or its
old .dat; `python -m runtime.quantize ... --imatrix` and llama-quantize read both. Exit status: 0, 2 for anything
refused (one line says why), 130 after Ctrl-C.
"""

import argparse
import sys
import time
from pathlib import Path

from refquant.errors import QuantError, RangeError
from refquant.gguf import importance_file
from runtime.activation_sums import collect
from runtime.printable import one_line
from runtime.quantization_progress import Bar

PROGRAM = "refquant-imatrix"
WRITERS = {"gguf": importance_file.write_gguf, "dat": importance_file.write_dat}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parse(argv)
    began = time.perf_counter()
    try:
        with Bar(sys.stderr, enabled=not arguments.quiet, in_bytes=False) as bar:
            matrix = collect(
                arguments.model,
                _read(arguments.file),
                dataset=str(arguments.file),
                ctx=arguments.ctx,
                chunks=arguments.chunks,
                threads=arguments.threads,
                exact=arguments.exact,
                progress=bar,
            )
        WRITERS[arguments.output_format](arguments.output, matrix)
    except KeyboardInterrupt:
        return 130
    except (QuantError, OSError, MemoryError) as error:
        print(f"{PROGRAM}: {one_line(error) or 'out of memory'}", file=sys.stderr)
        return 2
    if not arguments.quiet:
        seconds, count = time.perf_counter() - began, matrix.chunk_count
        print(f"{len(matrix.entries)} tensors, {count} chunks in {seconds:.1f} s: {arguments.output}", file=sys.stderr)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RangeError(f"{path}: byte {error.start} is no UTF-8, expected a text") from error


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Collect an importance matrix of a model over a text.", allow_abbrev=False
    )
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file; best one whose weights are not quantized")
    add("-f", "--file", type=Path, required=True, metavar="TEXT", help="what to read: at least two chunks of it")
    add("-o", "--output", type=Path, default=Path("imatrix.gguf"), metavar="OUT", help="(imatrix.gguf)")
    add("--output-format", choices=WRITERS, default="gguf", help="dat: the old layout (gguf)")
    add("--chunks", type=int, metavar="N", help="at most N chunks (default: all of the text)")
    add("--ctx", type=int, default=512, metavar="N", help="tokens of a chunk (512)")
    add("--threads", type=int, metavar="N", help="threads (default: the physical cores)")
    add("--exact", action="store_true", help="NumPy, nothing rounded: slow; models of experts always take it")
    add("-q", "--quiet", action="store_true", help="errors only")
    arguments = parser.parse_args(argv)
    for option in ("chunks", "threads"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            parser.error(f"--{option} {value}: expected 1 or more")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
