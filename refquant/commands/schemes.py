"""`refquant schemes`: every format, what a weight costs, what its name means."""

import argparse
import json

from refquant import gguf, inspection, schemes
from refquant.schemes import SCHEMES, Scheme, parse


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the epilog is the grammar that schemes.py states."""
    parser.description = (
        "List number formats. Any group size and any combination of words works, not only those listed."
    )
    parser.epilog = (schemes.__doc__ or "").partition("\n\n")[2]
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> list[str]:
    """The lines of a table, or JSON."""
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


def describe(scheme: Scheme) -> str:
    """One line about a scheme: its rule and who shares a scale. Whose customs it follows, its name says."""
    who = scheme.granularity
    sizes = {"group": f" of {who.size}", "block": f" of {who.size}", "tile": f" of {who.rows} x {who.size}"}
    per = "" if scheme.head in gguf.FORMATS else f" per {who.kind}{sizes.get(who.kind, '')}"
    return scheme.rule.summary + per
