"""`refquant diff`: in how many codes and scales two files or two schemes part, and which rule explains it."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from refquant import difference, file_difference
from refquant.difference import Difference, PartDifference
from refquant.errors import QuantError
from refquant.file_difference import FileDifference
from refquant.inspection import printable

SHAPE = (64, 256)
SHOWN = 20  # tensors and keys


def _ties(rng: np.random.Generator) -> np.ndarray:
    return (rng.integers(-28, 29, SHAPE) / 4).astype(np.float32)


def _powers(rng: np.random.Generator) -> np.ndarray:
    x = rng.uniform(-0.9, 0.9, SHAPE).astype(np.float32)
    x[:, ::16] = 2.0 ** rng.integers(-8, 9, (SHAPE[0], SHAPE[1] // 16))
    return x


INPUTS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "gaussian": lambda rng: rng.standard_normal(SHAPE, np.float32),
    "ties": _ties,
    "powers": _powers,
    "zeros": lambda rng: np.zeros(SHAPE, np.float32),
}
EPILOG = """\
examples
  refquant diff a.gguf b.gguf                              metadata, tensors, fields of blocks
  refquant diff a.safetensors b.safetensors
  refquant diff int4-g128 int4-g128@gptq                   two rules on the same numbers
  refquant diff mxfp4 mxfp4@modelopt --input ties
  refquant diff nf4 nf4@bitsandbytes-cuda --input w.npy

exit status
  0 equal; 1 they differ, or a file is bad
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Compare two model files, or what two schemes make of the same numbers."
    parser.epilog = EPILOG
    parser.add_argument("a", metavar="A", help="a .gguf or .safetensors file, or a scheme")
    parser.add_argument("b", metavar="B", help="the same kind of thing")
    parser.add_argument(
        "--input",
        default="gaussian",
        metavar="WHAT",
        help=f"numbers for schemes: {', '.join(INPUTS)}, or a .npy file (default gaussian)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the numbers (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> Iterable[str]:
    """The lines of a report, or JSON. Raises QuantError."""
    a, b = arguments.a, arguments.b
    compare = _comparison(Path(a), Path(b))
    if compare is not None:
        found: FileDifference | Difference = compare(a, b)
        text = _file_lines
    else:
        found = difference.schemes(a, b, _numbers(arguments.input, arguments.seed))
        text = _scheme_lines
    if arguments.json:
        yield json.dumps(dataclasses.asdict(found) | {"equal": found.equal}, indent=1, default=str)
    else:
        yield from text(found)
    if not found.equal:
        raise SystemExit(1)


def _comparison(a: Path, b: Path) -> Callable[[str, str], FileDifference] | None:
    kinds = {".gguf": file_difference.gguf_files, ".safetensors": file_difference.safetensors_files}
    if a.suffix not in kinds and b.suffix not in kinds:
        return None
    if a.suffix != b.suffix:
        raise QuantError(f"diff: A = {printable(str(a))}, B = {printable(str(b))}, expected two files of one format")
    return kinds[a.suffix]


def _numbers(what: str, seed: int) -> np.ndarray:
    if what in INPUTS:
        return INPUTS[what](np.random.default_rng(seed))
    if not what.endswith(".npy"):
        raise QuantError(f"diff: --input = {printable(what)}, expected one of {', '.join(INPUTS)} or a .npy file")
    try:
        return np.load(what, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise QuantError(f"diff: --input = {printable(what)}, expected a readable .npy file: {error}") from error


def _scheme_lines(found: Difference) -> Iterable[str]:
    yield from (_part_line(part) for part in found.parts)
    for rule in found.rules:
        share = "" if rule.explains is None else f"   explains {100 * rule.explains:.4g} %"
        yield f"rule {rule.field}: {_brief(rule.a)} and {_brief(rule.b)}{share}"
    if found.equal:
        yield "equal"


def _brief(value: object) -> str:
    """A value of a rule in a few words: tables and rules within rules by what they say of themselves."""
    text = str(getattr(value, "summary", value))
    return text if len(text) <= 60 else text[:57] + "..."


def _part_line(part: PartDifference) -> str:
    if part.remark:
        return f"{part.name}: {part.remark}"
    line = f"{part.name}: {part.differing} of {part.size} differ"
    return f"{line}, the first at {list(part.first)}: {part.numbers[0]} and {part.numbers[1]}" if part.first else line


def _file_lines(found: FileDifference) -> Iterable[str]:
    for line in found.metadata[:SHOWN]:
        yield f"metadata {printable(line, 200)}"
    if len(found.metadata) > SHOWN:
        yield f"metadata: {len(found.metadata) - SHOWN} more keys differ"
    for tensor in found.tensors[:SHOWN]:
        yield f"tensor {printable(tensor.name)}: {tensor.remark}"
        yield from (f"  {_part_line(part)}" for part in tensor.parts if part.differing)
    if len(found.tensors) > SHOWN:
        yield f"{len(found.tensors) - SHOWN} more tensors differ"
    yield f"{found.equal_tensors} tensors are equal, {len(found.tensors)} differ, {len(found.metadata)} keys differ"
