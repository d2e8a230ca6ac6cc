"""The command line: `python -m refquant`, or `refquant` once installed."""

import argparse
import importlib
import os
import sys

from refquant import __version__, inspection
from refquant.commands import COMMANDS
from refquant.errors import QuantError

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
        argv = sys.argv[1:] if argv is None else argv
        arguments = _parser(argv).parse_args(argv)
        for line in arguments.run(arguments):
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


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("refquant", description=DESCRIPTION, epilog=EPILOG, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"refquant {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = subparsers.add_parser(name, help=text, formatter_class=plain)
        if name in argv:
            module = importlib.import_module(f"refquant.commands.{name}")
            module.fill(command)
            command.set_defaults(run=module.run)
    return parser


def _encodable(line: str) -> str:
    """What the terminal's encoding can show; the rest escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
