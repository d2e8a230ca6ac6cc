"""The command line: `python -m refquant`, or `refquant` once installed."""

import argparse
import json
import os
import sys

from refquant import __version__, codebook, gguf, inspection
from refquant.errors import QuantError
from refquant.schemes import SCHEMES, Scheme, parse

DESCRIPTION = "Quantization formats of language models, written down in NumPy."
EPILOG = """\
examples
  refquant schemes                        every format: its name, what a weight costs, what the name means
  refquant schemes --json                 the same for programs
  refquant inspect model.gguf             metadata and tensors of a model file; a split model by its first file
  refquant inspect model.gguf --json      the same for programs, sizes in bytes

in Python
  import refquant
  q = refquant.quantize(weights, "int4-g128-asym")      codes, scale, zero_point
  q.dequantize(), q.nbytes, q.bits_per_weight

exit status
  0 done; 1 the file or the request is bad, one line on stderr says why; 2 the command line is wrong; 130 Ctrl-C
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status; nothing is raised for bad files, bad arguments or a closed pipe."""
    try:
        arguments = _parser().parse_args(argv)
        for line in arguments.command(arguments):
            print(_encodable(line))
        sys.stdout.flush()
    except QuantError as error:
        print(_encodable(f"refquant: {inspection.printable(str(error), 1000)}"), file=sys.stderr)
        return 1
    except BrokenPipeError:  # `refquant schemes | head`: the reader has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as leaving:  # argparse: --help, or a wrong command line
        return leaving.code if isinstance(leaving.code, int) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("refquant", description=DESCRIPTION, epilog=EPILOG, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"refquant {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    schemes = commands.add_parser(
        "schemes",
        help="list the formats that quantize() knows",
        description="List number formats. Any group size and any combination of words works, not only those listed.",
        epilog=_grammar(),
        formatter_class=plain,
    )
    schemes.set_defaults(command=_schemes)
    inspect = commands.add_parser(
        "inspect", help="show what a GGUF file holds", description="Show the metadata and the tensors of a GGUF file."
    )
    inspect.add_argument("file", metavar="FILE.gguf")
    inspect.set_defaults(command=_inspect)
    for command in (schemes, inspect):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _schemes(arguments: argparse.Namespace) -> list[str]:
    decoded = {name: parse(name) for name in gguf.FORMATS if name not in SCHEMES}
    rows = [
        {"name": name, "bits_per_weight": s.bits_per_weight, "encode": s.can_encode, "shared": str(s.granularity)}
        | {"description": describe(s)}
        for name, s in {**SCHEMES, **decoded}.items()
    ]
    if arguments.json:
        return [json.dumps(rows, indent=1)]
    cells = [
        (row["name"], f"{row['bits_per_weight']:.3f}", row["description"] + ("" if row["encode"] else ", decoded only"))
        for row in rows
    ]
    return list(inspection.table(("scheme", "bits/weight", "what it is"), cells, right=(1,)))


def _inspect(arguments: argparse.Namespace) -> list[str]:
    with gguf.open(arguments.file) as file:
        facts = inspection.summary(file)
    return [json.dumps(facts, indent=1)] if arguments.json else list(inspection.lines(facts))


def describe(scheme: Scheme) -> str:
    """One line about a scheme."""
    rule, who = scheme.rule, scheme.granularity
    if isinstance(rule, gguf.BlockFormat):
        stored = "one value" if rule.is_scalar else f"{rule.values} weights in {rule.block_bytes} bytes"
        return f"ggml type {rule.ggml_id}, {stored}"
    sizes = {"group": f" of {who.size}", "block": f" of {who.size}", "tile": f" of {who.rows} x {who.size}"}
    per = f"per {who.kind}{sizes.get(who.kind, '')}"
    if isinstance(rule, codebook.Rule):
        customs = f", as {scheme.dialect}" if scheme.dialect else ""
        return f"{len(rule.levels)} fixed levels, float32 scale {per}{customs}"
    kind = "sign of x" if rule.binary else f"symmetric, {rule.range_mode}" if rule.symmetric else "asymmetric"
    zero = "" if rule.symmetric else " and zero point" if rule.zero_kind == "int" else " and float zero point"
    return f"{rule.qmin}..{rule.qmax}, {kind}, {rule.scale_dtype} scale{zero} {per}"


def _grammar() -> str:
    """The spelling rules, as schemes.py states them."""
    return (sys.modules[Scheme.__module__].__doc__ or "").partition("\n\n")[2]


def _encodable(line: str) -> str:
    """What the terminal's encoding can show; the rest escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
