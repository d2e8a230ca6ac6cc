"""Records of runs -> one HTML page that needs nothing else: a matrix, and below it every failure, with its bits.

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
STYLE = """
:root { color-scheme: light dark; --line: #8884; --pass: #2a8c4a; --known: #b07a12; --bad: #c23b3b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: 2px 6px; text-align: right; } th:first-child { text-align: left; }
thead th { vertical-align: bottom; text-align: center; } thead span { writing-mode: vertical-rl; }
.pass { color: var(--pass); } .known { color: var(--known); } .bad { color: var(--bad); font-weight: 600; }
.none { color: #8888; } details { margin: .4rem 0; } summary { cursor: pointer; } code, pre { font-size: 12px; }
pre { overflow-x: auto; line-height: 1.35; } h2 { margin-top: 2.2rem; } .same { opacity: .45; }
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
    body = [*_summary(records), *_matrix(records)]
    for record in records:
        body += _backend(record, tests)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Conformance</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _summary(records: Sequence[Mapping[str, object]]) -> Iterator[str]:
    yield "<h1>Conformance</h1>"
    yield "<p>Frozen vectors of quantization formats, run against the code of their authors. A cell counts the tests"
    yield 'of one backend: <span class="pass">passed</span>, <span class="known">failed for a reason that is written'
    yield 'down</span>, <span class="bad">failed</span>. Tests that a backend has nothing for are not counted.</p>'
    yield '<div class="wide"><table><thead><tr><th>backend</th><th>version</th><th>passed</th><th>known</th>'
    yield "<th>unexpected</th></tr></thead><tbody>"
    for record in records:
        counts = _counts(record["outcomes"])
        cells = "".join(f'<td class="{kind}">{counts[kind]}</td>' for kind in ("pass", "known", "bad"))
        name = f'<a href="#{_escaped(record["backend"])}">{_escaped(record["name"])}</a>'
        yield f"<tr><th>{name}</th><td>{_escaped(record['version'])}</td>{cells}</tr>"
    yield "</tbody></table></div>"


def _matrix(records: Sequence[Mapping[str, object]]) -> Iterator[str]:
    algorithms = sorted({name for record in records for name in record["tally"]})
    cells: dict[tuple[str, str], Counter] = {}
    for record in records:
        for outcome in record["outcomes"]:
            key = str(record["backend"]), outcome["test"].partition(":")[0]
            cells.setdefault(key, Counter())[_kind(outcome)] += 1
    yield "<h2>Backend and algorithm</h2>"
    heads = "".join(f"<th><span>{_escaped(record['name'])}</span></th>" for record in records)
    yield f'<div class="wide"><table><thead><tr><th>algorithm</th>{heads}</tr></thead><tbody>'
    for algorithm in algorithms:
        found = [cells.get((str(record["backend"]), algorithm), Counter()) for record in records]
        if any(counts[kind] for counts in found for kind in ("pass", "known", "bad")):
            yield f"<tr><th>{_escaped(algorithm)}</th>{''.join(map(_cell, found))}</tr>"
    yield "</tbody></table></div>"


def _cell(counts: Counter) -> str:
    shown = [f'<span class="{kind}">{counts[kind]}</span>' for kind in ("pass", "known", "bad") if counts[kind]]
    return f"<td>{' '.join(shown)}</td>" if shown else '<td class="none">·</td>'


def _backend(record: Mapping[str, object], tests: Mapping[str, vectors.Test]) -> Iterator[str]:
    name = _escaped(record["backend"])
    yield f'<h2 id="{name}">{_escaped(record["name"])} {_escaped(record["version"])}</h2>'
    failed = [outcome for outcome in record["outcomes"] if _kind(outcome) in ("known", "bad")]
    if not failed:
        yield '<p class="pass">Every test that it answered passed.</p>'
    for outcome in failed:
        test = tests.get(outcome["test"])
        kind = _kind(outcome)
        yield f'<details><summary class="{kind}">{_escaped(outcome["test"])}</summary>'
        yield f"<p>{_escaped(outcome['status'])}: {_escaped(outcome['reason'])}</p>"
        if outcome.get("known"):
            yield f"<p>Known: {_escaped(outcome['known'])}</p>"
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


def _counts(outcomes: Iterable[Mapping[str, object]]) -> Counter:
    return Counter(map(_kind, outcomes))


def _kind(outcome: Mapping[str, object]) -> str:
    if outcome["status"] in (FAIL, ERROR):
        return "known" if outcome.get("known") else "bad"
    return {PASS: "pass", SKIP: "skip"}[outcome["status"]]


def _escaped(text: object) -> str:
    return html.escape(str(text))
