"""`refquant inspect`: the metadata and the tensors of a GGUF file."""

import argparse
import json

from refquant import gguf, inspection


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Show the metadata and the tensors of a GGUF file."
    parser.add_argument("file", metavar="FILE.gguf")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> list[str]:
    """The lines of two tables, or JSON. Raises GGUFError."""
    with gguf.open(arguments.file) as file:
        facts = inspection.summary(file)
    return [json.dumps(facts, indent=1)] if arguments.json else list(inspection.lines(facts))
