"""Quantize a model: `python -m runtime.quantize IN.gguf OUT.gguf Q4_K_M`, or a Hugging Face folder in place of IN.gguf.

What llama-quantize does, to the same bytes (runtime.quantization_plan, runtime.quantization), with the names of its
options; a folder is converted on the way (runtime.quantize_folder). Standard output gets the plan of a dry run, or one
JSON object; everything else goes to standard error. Exit status: 0, 2 for anything refused (one line says why), 130
after Ctrl-C. Interrupted or refused, it leaves no file behind; of a folder, what the same command goes on with.
"""

import argparse
import json
import re
import signal
import sys
import time
import warnings
from pathlib import Path

from refquant import gguf
from refquant.errors import QuantError, RangeError, SchemeError
from refquant.gguf import FORMATS, importance_file
from refquant.gguf.file_types import ALIASES, FILE_TYPES, Choices, FileType, lookup
from refquant.pipeline import open_checkpoint
from runtime.printable import one_line
from runtime.quantization import run
from runtime.quantization_plan import Importance, Plan, make_plan
from runtime.quantization_progress import Bar
from runtime.resident_memory import resident_memory

PROGRAM = "refquant-quantize"
EXAMPLES = f"""\
examples:
  python -m runtime.quantize model-F16.gguf model-Q4_K_M.gguf Q4_K_M
  python -m runtime.quantize model-F16.gguf out.gguf IQ2_M --imatrix imatrix.gguf
  python -m runtime.quantize model-F16.gguf out.gguf Q4_K_M --tensor-type 'ffn_down=Q6_K' --output-tensor-type Q8_0
  python -m runtime.quantize Qwen2.5-0.5B out.gguf Q4_K_M
  python -m runtime.quantize Qwen2.5-0.5B out.gguf Q4_K_M --method awq --calibration text.txt --samples 32
                                                a folder with safetensors, config.json and a tokenizer
  python -m runtime.quantize --dry-run model-F16.gguf Q5_K_M
                                                what would become of each tensor, and the size

types: {", ".join([*FILE_TYPES, *ALIASES])}; COPY only copies
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parse(argv)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that no half file stays
    try:
        return _quantize(arguments)
    except KeyboardInterrupt:
        return 130
    except (QuantError, OSError, MemoryError, re.error) as error:
        print(f"{PROGRAM}: {one_line(error) or 'out of memory'}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def _quantize(arguments: argparse.Namespace) -> int:
    if arguments.source.is_dir():
        return _quantize_folder(arguments)
    copy = arguments.type.upper() == "COPY"
    file_type = FileType("COPY", 0, "F32") if copy else lookup(arguments.type)
    choices, importance = _choices(arguments), _importance(arguments)
    began = time.perf_counter()
    with gguf.open(arguments.source) as source:
        options = {"allow_requantize": arguments.allow_requantize, "keep_split": arguments.keep_split}
        plan = make_plan(source, file_type, choices, importance, **options, only_copy=copy, dry_run=arguments.dry_run)
        paths = []
        if not arguments.dry_run:
            if arguments.target.exists() and arguments.target.samefile(arguments.source):
                raise RangeError(f"{arguments.target}: is the input, expected another file")
            with Bar(sys.stderr, enabled=not arguments.quiet) as bar:
                paths = run(plan, arguments.target, arguments.threads, bar)
    seconds = time.perf_counter() - began
    if arguments.json:
        print(json.dumps(_as_json(plan, paths, seconds)))
    elif arguments.dry_run:
        print(_as_text(plan))
    if not arguments.quiet and not arguments.dry_run:
        print(f"{_size(plan)} in {seconds:.1f} s: {', '.join(map(str, paths))}", file=sys.stderr)
    return 0


def _quantize_folder(arguments: argparse.Namespace) -> int:
    from runtime import quantize_folder

    choices, importance = _choices(arguments), _importance(arguments)
    if arguments.dry_run:
        for name, type in quantize_folder.types(open_checkpoint(arguments.source), arguments.type, choices).items():
            print(f"{name}  {type}")
        return 0
    for warning in open_checkpoint(arguments.source).warnings:
        print(f"{PROGRAM}: warning: {one_line(warning)}", file=sys.stderr)
    with Bar(sys.stderr, enabled=not arguments.quiet, in_bytes=False) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they have been said
        made = quantize_folder.quantize(
            arguments.source,
            arguments.target,
            arguments.type,
            choices=choices,
            importance=None if importance is None else importance.weights,
            method=arguments.method,
            calibration=arguments.calibration,
            samples=arguments.samples,
            seq_len=arguments.seq_len,
            executor=arguments.executor or f"threads:{arguments.threads}",
            progress=bar,
        )
    if arguments.json:
        said = {"files": [str(made.path)], "bytes": made.nbytes, "seconds": round(made.seconds, 3)}
        print(json.dumps(said | {"resumed": made.resumed, "peak_memory": resident_memory().peak}))
    if not arguments.quiet:
        print(f"{made.nbytes / 1e6:,.1f} MB in {made.seconds:.1f} s: {made.path}", file=sys.stderr)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s IN.gguf|FOLDER OUT.gguf TYPE [options]",
        description="Quantize a GGUF file: what llama-quantize does, to the same bytes. Or a Hugging Face folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="IN OUT TYPE", help="input (of a split model the first file), output, file type")
    add("--imatrix", metavar="FILE", help="importance matrix (GGUF or .dat): better quants, and needed below 3 bits")
    add("--include-weights", metavar="PART", action="append", default=[], help="importance for these names alone")
    add("--exclude-weights", metavar="PART", action="append", default=[], help="no importance for these names")
    add("--tensor-type", metavar="REGEX=TYPE", action="append", default=[], help="a type for names that match")
    add("--output-tensor-type", metavar="TYPE", help="the type of output.weight")
    add("--token-embedding-type", metavar="TYPE", help="the type of the token embedding")
    add("--pure", action="store_true", help="one type for all matrices")
    add("--leave-output-tensor", action="store_true", help="do not quantize output.weight")
    add("--allow-requantize", action="store_true", help="accept quantized tensors, whose errors add up")
    add("--keep-split", action="store_true", help="as many files as the input has")
    add("--threads", type=int, metavar="N", help="threads (default: the physical cores)")
    add("--method", metavar="NAME", help="of a folder: awq, smoothquant; gptq, sparsegpt to Q4_0 and Q8_0")
    add("--calibration", type=Path, metavar="FILE", help="of a folder: a text for the method, or JSONL")
    add("--samples", type=int, default=128, metavar="N", help="sequences of the calibration text (128)")
    add("--seq-len", type=int, default=2048, metavar="N", help="tokens of a sequence (2048)")
    add("--executor", metavar="WHERE", help="of a folder: serial, threads, processes, dask://HOST:PORT")
    add("--dry-run", action="store_true", help="print the plan and the size; OUT may be left out")
    add("--json", action="store_true", help="the plan and the outcome as one JSON object")
    add("-q", "--quiet", action="store_true", help="errors only")
    arguments = parser.parse_args(argv)
    if len(arguments.files) != 3 and not (len(arguments.files) == 2 and arguments.dry_run):
        parser.error(f"files: {' '.join(arguments.files)}: expected IN.gguf OUT.gguf TYPE")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: expected 1 or more")
    if arguments.include_weights and arguments.exclude_weights:
        parser.error("--include-weights, --exclude-weights: expected one of them")
    arguments.source, arguments.type = Path(arguments.files[0]), arguments.files[-1]
    arguments.target = Path(arguments.files[1])
    own = ("method", "calibration", "executor")
    said = [name for name in own if getattr(arguments, name) is not None]
    if said and not arguments.source.is_dir():
        parser.error(f"--{said[0]}: {arguments.source}: expected a Hugging Face folder, which alone is calibrated")
    if arguments.threads is None:
        from runtime.cores import physical_cores

        arguments.threads = physical_cores()
    return arguments


def _choices(arguments: argparse.Namespace) -> Choices:
    named = []
    for option in arguments.tensor_type:
        pattern, equals, type = option.partition("=")
        if not pattern or not equals:
            raise SchemeError(f"--tensor-type {option!r}: expected REGEX=TYPE, such as ffn_down=Q6_K")
        named.append((re.compile(pattern.lower()), _type(type)))
    return Choices(
        output_type=_type(arguments.output_tensor_type),
        token_embedding_type=_type(arguments.token_embedding_type),
        tensor_types=tuple(named),
        pure=arguments.pure,
        leave_output=arguments.leave_output_tensor,
    )


def _type(name: str | None) -> str | None:
    """A tensor type by its name in any case. Raises SchemeError."""
    if name is None:
        return None
    found = next((type for type in FORMATS if type.lower() == name.lower()), None)
    if found is None or (FORMATS[found].encode is None and FORMATS[found].encode_weighted is None):
        raise SchemeError(f"type = {name!r}, expected a tensor type with an encoder, such as Q4_K, Q6_K, F16")
    return found


def _importance(arguments: argparse.Namespace) -> Importance | None:
    if arguments.imatrix is None:
        return None
    matrix = importance_file.read(arguments.imatrix)
    weights = {
        name: values
        for name, values in matrix.weights().items()
        if not any(part in name for part in arguments.exclude_weights)
        and (not arguments.include_weights or any(part in name for part in arguments.include_weights))
    }
    dataset = matrix.datasets[0] if matrix.datasets else None
    return Importance(weights, arguments.imatrix, dataset, matrix.chunk_count) if weights else None


def _as_json(plan: Plan, paths: list[Path], seconds: float) -> dict:
    return {
        "file_type": plan.file_type.name,
        "files": [str(path) for path in paths],
        "source_bytes": plan.source_nbytes,
        "bytes": plan.nbytes,
        "bits_per_weight": round(8 * plan.nbytes / max(1, plan.n_weights), 4),
        "seconds": round(seconds, 3),
        "peak_memory": resident_memory().peak,
        "tensors": [
            {"name": c.name, "shape": list(c.shape), "from": c.tensor.type, "to": c.type, "bytes": c.nbytes}
            for c in plan.conversions
        ],
    }


def _as_text(plan: Plan) -> str:
    rows = [(c.name, " x ".join(map(str, c.shape)), c.tensor.type, c.type, f"{c.nbytes:,}") for c in plan.conversions]
    rows.insert(0, ("tensor", "shape", "from", "to", "bytes"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    last = max(len(row[4]) for row in rows)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + row[4].rjust(last + 2) for row in rows]
    return "\n".join([*lines, "", _size(plan)])


def _size(plan: Plan) -> str:
    bits = 8 * plan.nbytes / max(1, plan.n_weights)
    before, after = plan.source_nbytes / 1e6, plan.nbytes / 1e6
    name, count = plan.file_type.name, len(plan.conversions)
    return f"{name}: {count} tensors, {before:,.1f} MB -> {after:,.1f} MB, {bits:.2f} bits a weight"


if __name__ == "__main__":
    sys.exit(main())
