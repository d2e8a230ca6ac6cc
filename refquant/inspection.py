"""What a GGUF file says of itself, as data for programs and as lines for people.

Strings out of a file are printed escaped, so that a hostile file cannot drive a terminal, and arrays by their first
values: a vocabulary has a hundred thousand.
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from refquant import gguf
from refquant.gguf.strings import Strings
from refquant.memory import human

FIRST = 6  # elements of an array that are shown


def summary(file: gguf.GGUFFile) -> dict[str, object]:
    """Header, metadata, tensors and totals of an open file, ready for json.dumps (no NaN, no bytes, no long arrays)."""
    tensors = [
        {
            "name": t.name,
            "type": t.type,
            "shape": list(t.shape),
            "nbytes": t.nbytes,
            "offset": t.offset,
            "file": t.path.name,
        }
        for t in file.tensors.values()
    ]
    return {
        "path": str(file.path),
        "version": file.version,
        "alignment": file.alignment,
        "metadata": {key: _value(value, file.types[key]) for key, value in file.metadata.items()},
        "tensors": tensors,
        "types": _totals(tensors),
        "weights": sum(math.prod(t["shape"]) for t in tensors),
        "nbytes": sum(t["nbytes"] for t in tensors),
    }


def lines(facts: dict[str, object]) -> Iterator[str]:
    """`summary` for people."""
    tensors, weights, nbytes = facts["tensors"], facts["weights"], facts["nbytes"]
    average = f"{8 * nbytes / weights:.3g} bits per weight" if weights else "no weights"
    yield printable(facts["path"])
    contents = f"{len(tensors)} tensors, {_count(weights)} weights, {human(nbytes)}, {average}"
    yield f"GGUF version {facts['version']}, {contents}"
    yield ""
    yield f"METADATA ({len(facts['metadata'])} keys)"
    width = max((len(printable(key)) for key in facts["metadata"]), default=0)
    for key, entry in facts["metadata"].items():
        yield f"  {printable(key):{width}}  {entry['type']:8}  {_shown(entry)}"
    yield ""
    yield "TENSORS (shape is rows x inputs)"
    yield from table(
        ("name", "type", "shape", "size", "bits/weight"),
        [
            (printable(t["name"]), t["type"], " x ".join(map(str, t["shape"])), human(t["nbytes"]), _density(t))
            for t in tensors
        ],
        right=(3, 4),
    )
    yield ""
    yield "TYPES"
    rows = [(name, f"{t['tensors']}", human(t["nbytes"])) for name, t in facts["types"].items()]
    yield from table(("type", "tensors", "size"), rows, right=(1, 2))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> Iterator[str]:
    """Columns as wide as their widest cell, two spaces apart; those in `right` end at one edge."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        cells = (f"{c:>{w}}" if i in right else f"{c:{w}}" for i, (c, w) in enumerate(zip(row, widths)))
        yield ("  " + "  ".join(cells)).rstrip()


def printable(text: str, limit: int = 100) -> str:
    """`text` on one line without control characters or lone surrogates, cut to about `limit` characters."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def _value(value: object, spelling: str) -> dict[str, object]:
    """One metadata entry; floats that JSON cannot write become strings."""
    if not isinstance(value, Strings | np.ndarray):
        return {"type": spelling, "value": _json(value)}
    first = value[:FIRST].tolist() if isinstance(value, np.ndarray) else value[:FIRST]
    return {"type": spelling, "count": len(value), "first": [_json(v) for v in first]}


def _json(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shown(entry: dict[str, object]) -> str:
    if "value" in entry:
        return _scalar(entry["value"], 100)
    first = ", ".join(repr(_scalar(v, 24)) if isinstance(v, str) else _scalar(v) for v in entry["first"])
    return f"{entry['count']} values: {first}{', ...' if entry['count'] > FIRST else ''}"


def _scalar(value: object, limit: int = 100) -> str:
    if isinstance(value, str):
        return printable(value, limit)
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _totals(tensors: list[dict]) -> dict[str, dict[str, int]]:
    """Tensors and bytes of each type, the largest first."""
    totals: dict[str, dict[str, int]] = defaultdict(lambda: {"tensors": 0, "nbytes": 0})
    for t in tensors:
        totals[t["type"]]["tensors"] += 1
        totals[t["type"]]["nbytes"] += t["nbytes"]
    return dict(sorted(totals.items(), key=lambda item: -item[1]["nbytes"]))


def _density(t: dict) -> str:
    weights = math.prod(t["shape"])
    return f"{8 * t['nbytes'] / weights:.4g}" if weights else "-"


def _count(n: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {name}"
    return str(n)
