"""Records of runs -> one HTML page that needs nothing else: matrices, and below them every failure, with its bits.

python -m conformance run --backend torch --json > torch.json
python -m conformance report torch.json ... -o conformance.html
"""

import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from conformance import vectors
from conformance.protocol import ERROR, FAIL, PASS, SKIP
from refquant.errors import QuantError

FIELDS = {"backend", "name", "version", "tally", "outcomes"}
KINDS = ("pass", "known", "bad")
WORDS = ("passed", "failed as known", "failed")
FAMILIES = {
    "gguf": "Block types of ggml: encoders and decoders",
    "product": "Matrix times vector, the matrix in blocks",
    "scheme": "Formats: codes, scales and values",
    "variant": "Formats said in words, under given scales, of other shapes; their sizes",
    "minifloat": "Casts to small floats",
    "levels": "Tables of levels",
    "bits": "Codes in bytes",
    "words": "Codes in words of 32 bits",
    "tensor": "Codes in tensors of ONNX",
    "layout": "Packed weights of other people's files",
    "checkpoint": "Whole records of other people's files: written, read, decoded",
    "vector": "Codes of vectors and of trellises",
    "cache": "Caches of keys and values",
    "observer": "Ranges from data",
    "method": "Calibrated methods",
    "step": "Single steps of calibrated methods",
    "rotation": "Rotations and Hadamard matrices",
    "training": "Rounding in training, and its gradients",
    "collective": "What ranks send each other in few bits",
    "layer": "Float parts of a layer",
    "tokenizer": "Tokenizers",
    "template": "Chat templates",
    "sampler": "Sampler",
    "model": "Logits of whole models",
}
STYLE = """
:root { color-scheme: light; --line: #d5d9de; --ok: #e3f3e6; --okay: #1d6b33; --known: #fdf0d0; --known-ink: #7a5200;
  --bad: #fbdcdc; --bad-ink: #a11d1d; --ink: #1b1f24; --soft: #68707a; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; max-width: 90rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { margin-bottom: .3rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); } a { color: #0b57a4; }
table { border-collapse: separate; border-spacing: 0; font-size: 13px; } .wide { overflow-x: auto; max-width: 100%; }
th, td { padding: 2px 7px; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; }
th { font-weight: 500; } tbody th, thead th:first-child { text-align: left; }
.matrix { font-size: 12px; }
.matrix td { border-left: 1px solid #fff; min-width: 2rem; padding: 2px 4px; text-align: center; white-space: nowrap; }
.matrix tbody th { position: sticky; left: 0; background: #fff; white-space: nowrap; }
.matrix thead th { vertical-align: bottom; } .matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; }
.pass { background: var(--ok); color: var(--okay); } .known { background: var(--known); color: var(--known-ink); }
.bad { background: var(--bad); color: var(--bad-ink); font-weight: 600; } .none { color: #c3c8ce; }
details { margin: .35rem 0; } details details { margin-left: 1.2rem; } summary { cursor: pointer; }
summary .pass, summary .known, summary .bad, p .pass, p .known, p .bad { padding: 0 .35rem; border-radius: 3px; }
details p { margin: .2rem 0 .2rem 1.2rem; color: var(--soft); } code, pre { font-size: 12px; }
pre { margin: .3rem 0 .6rem 1.2rem; padding: .4rem .6rem; background: #f5f7f9; overflow-x: auto; line-height: 1.35; }
.same { color: #a3abb3; } ul { margin: .3rem 0; padding-left: 1.4rem; }
"""


def read(paths: Iterable[Path]) -> list[dict[str, object]]:
    """The records. Raises QuantError for a file that is none."""
    found = []
    for path in paths:
        try:
            record = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise QuantError(f"conformance report: {path} = {error}, expected a record of `run --json`") from error
        if not isinstance(record, dict) or not record.keys() >= FIELDS:
            raise QuantError(f"conformance report: {path}, expected a record of `run --json`")
        found.append(record)
    return sorted(found, key=lambda record: str(record["name"]).lower())


def page(records: Sequence[Mapping[str, object]], root: Path = vectors.ROOT) -> str:
    """The page as one string."""
    tests = {test.id: test for test in vectors.select(root=root)}
    cells = _cells(records)
    body = [*_summary(records), *_overview(records, cells)]
    for family in FAMILIES:
        body += _matrix(family, records, cells)
    for record in records:
        body += _backend(record, tests)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Conformance</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _cells(records: Sequence[Mapping[str, object]]) -> dict[tuple[str, str], Counter]:
    """Counts of each kind by (backend, algorithm)."""
    cells: dict[tuple[str, str], Counter] = {}
    for record in records:
        for outcome in record["outcomes"]:
            key = str(record["backend"]), outcome["test"].partition(":")[0]
            cells.setdefault(key, Counter())[_kind(outcome)] += 1
    return {key: counts for key, counts in cells.items() if any(counts[kind] for kind in KINDS)}


def _summary(records: Sequence[Mapping[str, object]]) -> Iterator[str]:
    yield "<h1>Conformance</h1>"
    yield "<p>Frozen vectors of quantization formats, run against the code of their authors. A cell counts the tests"
    yield 'of one backend: <span class="pass">passed</span>, <span class="known">failed for a reason that is written'
    yield 'down</span>, <span class="bad">failed</span>. Tests that a backend has nothing for are not counted.</p>'
    yield '<div class="wide"><table><thead><tr><th>backend</th><th>version</th><th>passed</th><th>known</th>'
    yield "<th>unexpected</th></tr></thead><tbody>"
    for record in records:
        counts = Counter(map(_kind, record["outcomes"]))
        shown = (f'<td class="{kind if counts[kind] else "none"}">{counts[kind]}</td>' for kind in KINDS)
        name = f'<a href="#{_escaped(record["backend"])}">{_escaped(record["name"])}</a>'
        yield f"<tr><th>{name}</th><td>{_escaped(record['version'])}</td>{''.join(shown)}</tr>"
    yield "</tbody></table></div>"


def _overview(records: Sequence[Mapping[str, object]], cells: Mapping[tuple[str, str], Counter]) -> Iterator[str]:
    yield "<h2>Backend and subject</h2>"
    rows = {}
    for family, title in FAMILIES.items():
        found = []
        for record in records:
            mine = [c for (b, a), c in cells.items() if b == record["backend"] and a.startswith(f"{family}.")]
            found.append(sum(mine, Counter()))
        if any(found):
            rows[f'<a href="#of-{family}">{_escaped(title)}</a>'] = found
    yield from _table(rows, records)


def _matrix(
    family: str, records: Sequence[Mapping[str, object]], cells: Mapping[tuple[str, str], Counter]
) -> Iterator[str]:
    """The algorithms of one family, with a column for each backend that has any of them."""
    mine = {key: counts for key, counts in cells.items() if key[1].startswith(f"{family}.")}
    columns = [record for record in records if any(backend == record["backend"] for backend, _ in mine)]
    if not columns:
        return
    yield f'<h2 id="of-{family}">{FAMILIES[family]}</h2>'
    rows = {
        _escaped(algorithm.partition(".")[2]): [mine.get((str(r["backend"]), algorithm), Counter()) for r in columns]
        for algorithm in sorted({algorithm for _, algorithm in mine})
    }
    yield from _table(rows, columns)


def _table(rows: Mapping[str, Sequence[Counter]], columns: Sequence[Mapping[str, object]]) -> Iterator[str]:
    heads = "".join(
        f'<th><span><a href="#{_escaped(record["backend"])}">{_escaped(record["name"])}</a></span></th>'
        for record in columns
    )
    yield f'<div class="wide"><table class="matrix"><thead><tr><th></th>{heads}</tr></thead><tbody>'
    for name, found in rows.items():
        yield f"<tr><th>{name}</th>{''.join(map(_cell, found))}</tr>"
    yield "</tbody></table></div>"


def _cell(counts: Counter) -> str:
    worst = next((kind for kind in reversed(KINDS) if counts[kind]), "none")
    shown = " + ".join(f"{counts[kind]}" for kind in KINDS if counts[kind])
    title = ", ".join(f"{counts[kind]} {word}" for kind, word in zip(KINDS, WORDS) if counts[kind])
    return f'<td class="{worst}" title="{title}">{shown}</td>' if shown else '<td class="none">·</td>'


def _backend(record: Mapping[str, object], tests: Mapping[str, vectors.Test]) -> Iterator[str]:
    """The failures of a backend, those of one reason together."""
    name = _escaped(record["backend"])
    yield f'<h2 id="{name}">{_escaped(record["name"])} {_escaped(record["version"])}</h2>'
    groups: dict[tuple[str, str], list[Mapping[str, object]]] = {}
    for outcome in record["outcomes"]:
        if _kind(outcome) in ("known", "bad"):
            groups.setdefault((_kind(outcome), str(outcome.get("known") or "unexpected")), []).append(outcome)
    if not groups:
        yield "<p>Every test that it answered passed.</p>"
    for (kind, reason), outcomes in sorted(groups.items()):
        said = f"Known: {reason}" if kind == "known" else "Unexpected"
        yield f'<details><summary><span class="{kind}">{len(outcomes)}</span> {_escaped(said)}</summary>'
        for outcome in outcomes:
            yield from _failure(record, outcome, tests.get(outcome["test"]))
        yield "</details>"


def _failure(record: Mapping[str, object], outcome: Mapping[str, object], test: vectors.Test | None) -> Iterator[str]:
    yield f"<details><summary>{_escaped(outcome['test'])}</summary>"
    yield f"<p>{_escaped(outcome['status'])}: {_escaped(outcome['reason'])}</p>"
    if test is not None:
        yield from (f"<p>{flag}: {_escaped(test.notes[flag]['effect'])}</p>" for flag in test.flags)
    drawing = draw(outcome.get("bits"))
    if drawing:
        yield f"<pre>{drawing}</pre>"
    replay = f"python -m conformance run --backend {record['backend']} --only '{outcome['test']}'"
    yield f"<pre>{_escaped(replay)}</pre></details>"


def draw(bits: Mapping[str, object] | None) -> str:
    """The bytes of got and expected around the first that differs, a row a byte, in ones and zeros."""
    if not bits:
        return ""
    got, ref = (np.frombuffer(bytes.fromhex(str(bits[name])), np.uint8) for name in ("got", "expected"))
    lines = [f"{_escaped(bits['output'])}, bytes from {bits['at']} on", "  byte  got               expected"]
    for i, (a, b) in enumerate(zip(got.tolist(), ref.tolist()), int(bits["at"])):
        line = f"{i:6}  {a:08b} {a:#04x}     {b:08b} {b:#04x}"
        mark = "".join("^" if (a ^ b) >> (7 - bit) & 1 else " " for bit in range(8)).rstrip()
        lines += [f'<span class="same">{line}</span>'] if a == b else [line, f"        {mark}"]
    return "\n".join(lines)


def _kind(outcome: Mapping[str, object]) -> str:
    if outcome["status"] in (FAIL, ERROR):
        return "known" if outcome.get("known") else "bad"
    return {PASS: "pass", SKIP: "skip"}[outcome["status"]]


def _escaped(text: object) -> str:
    return html.escape(str(text))
