"""cases x oracle -> vectors/v1: `python -m conformance generate [--check]`.

The expectation of a case is what refquant answers. Its group carries as witnesses those other backends which gave the
same answers when the vectors were made, with the tests in which each of them did not; `unwitnessed` finds the rest.
Witnesses are taken from records of runs, on request only (--witness RECORD.json ...): without it those of the committed
file are kept, so that `--check` needs no backend.
"""

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from conformance import cases
from conformance.adapters import refquant as oracle
from conformance.arrays import Shared, to_json
from conformance.cases import (
    Case,
    bitsandbytes,
    block_edges,
    caches,
    calibrated,
    calibrated_edges,
    checkpoints,
    method_arguments,
    method_functions,
    method_parts,
    methods,
    number_edges,
    observer_edges,
    products,
    steps,
    surgery,
    training,
    variants,
    vector_codes,
)
from conformance.cases import arrays as inputs
from conformance.protocol import PASS, Refused
from refquant.errors import QuantError

INPUTS = "inputs.safetensors"


def build(subjects: Iterable[str] = cases.SUBJECTS) -> Iterator[tuple[Path, dict[str, object]]]:
    """(path below the root, content) of each vector file, without witnesses."""
    common = Shared(_shared(), f"../{INPUTS}")
    files: dict[str, dict[str, list[Case]]] = {}
    notes: dict[str, dict[str, dict[str, str]]] = {}
    for subject in subjects:
        module = importlib.import_module(f"conformance.cases.{subject}")
        for case in module.cases():
            files.setdefault(case.algorithm, {}).setdefault(case.group, []).append(case)
            notes.setdefault(case.algorithm, {}).update(module.NOTES)
    for algorithm, groups in files.items():
        family, _, member = algorithm.partition(".")
        yield Path(family) / f"{_file_name(member)}.json", _content(algorithm, groups, notes[algorithm], common)


def _shared() -> dict[str, np.ndarray]:
    return (
        inputs.shared()
        | methods.shared()
        | calibrated.shared()
        | products.shared()
        | checkpoints.shared()
        | bitsandbytes.shared()
        | variants.shared()
        | steps.shared()
        | vector_codes.shared()
        | training.shared()
        | surgery.shared()
        | caches.shared()
        | method_parts.shared()
        | calibrated_edges.shared()
        | method_functions.shared()
        | method_arguments.shared()
        | number_edges.shared()
        | block_edges.shared()
        | observer_edges.shared()
    )


def _file_name(member: str) -> str:
    """A name that every file system can hold: Q4_0 stays, nf4@bitsandbytes-cuda becomes nf4-at-bitsandbytes-cuda."""
    return member.replace("@", "-at-").replace("/", "-").replace(" ", "-")


def _content(
    algorithm: str, groups: dict[str, list[Case]], notes: dict[str, dict[str, str]], common: Shared
) -> dict[str, object]:
    used = {flag for group in groups.values() for case in group for flag in case.flags}
    return {
        "algorithm": algorithm,
        "schema": "v1.json",
        "generator": "refquant",
        "numberOfTests": sum(map(len, groups.values())),
        "notes": {flag: note for flag, note in notes.items() if flag in used},
        "groups": [
            {"name": name, "params": {}, "witness": [], "tests": [_test(case, common) for case in group]}
            for name, group in groups.items()
        ],
    }


def _test(case: Case, common: Shared) -> dict[str, object]:
    return {
        "id": case.name,
        "op": case.op,
        "flags": list(case.flags),
        "params": dict(case.params),
        "inputs": {name: to_json(array, common) for name, array in case.inputs.items()},
        "expect": _expectation(case, common),
        "result": case.result,
    }


def _expectation(case: Case, common: Shared) -> dict[str, object] | None:
    try:
        outputs = oracle.run(case.algorithm, case.op, case.params, case.inputs)
    except Refused:
        if case.result != "invalid":
            raise
        return None
    if case.result == "invalid":
        raise QuantError(f"conformance.generate: {case.algorithm} {case.name} was accepted, expected a refusal")
    return {name: _worded(case.words.get(name, "bits"), to_json(array, common)) for name, array in outputs.items()}


def _worded(word: str | tuple[str, float], array: dict[str, object]) -> dict[str, object]:
    if isinstance(word, str):
        return {word: array}
    metric, limit = word
    return {"ulp": array, "n": limit} if metric == "ulp" else {"bound": metric, "max": limit, "ref": array}


def text(content: dict[str, object]) -> str:
    """JSON with a test a line: small diffs, and no line for each number."""
    head = {key: value for key, value in content.items() if key != "groups"}
    lines = [json.dumps(head, indent=1)[:-2] + ',\n "groups": [']
    for g, group in enumerate(content["groups"]):
        facts = json.dumps({key: value for key, value in group.items() if key != "tests"})[:-1]
        lines.append(f'  {facts}, "tests": [')
        tests = [f"   {json.dumps(test, separators=(',', ':'))}" for test in group["tests"]]
        lines.append(",\n".join(tests))
        lines.append("  ]}" + ("," if g + 1 < len(content["groups"]) else ""))
    return "\n".join([*lines, " ]\n}\n"])


def write(root: Path, witnesses: list[Mapping[str, object]], check: bool) -> list[str]:
    """Write or compare every file; returns a line for each that differs from what is committed."""
    changed, made, data = [], set(), Shared(_shared(), INPUTS).to_bytes()
    if not (root / INPUTS).exists() or (root / INPUTS).read_bytes() != data:
        changed.append(f"{INPUTS}: differs")
        if not check:
            root.mkdir(parents=True, exist_ok=True)
            _replace(root / INPUTS, data)
    for relative, content in build():
        path = root / relative
        made.add(path)
        _keep_witnesses(path, content)
        if witnesses:
            _find_witnesses(path, content, witnesses)
        new = text(content)
        if not path.exists() or path.read_text("utf-8") != new:
            changed.append(f"{relative}: {'differs' if path.exists() else 'is missing'}")
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                _replace(path, new.encode())
    for path in sorted(set(root.rglob("*.json")) - made):
        changed.append(f"{path.relative_to(root)}: has no case")
        if not check:
            path.unlink()
    return changed


def _replace(path: Path, data: bytes) -> None:
    """Atomically: who has the old file mapped keeps it."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _keep_witnesses(path: Path, content: dict[str, object]) -> None:
    if not path.exists():
        return
    before = {group["name"]: group["witness"] for group in json.loads(path.read_text("utf-8"))["groups"]}
    for group in content["groups"]:
        group["witness"] = before.get(group["name"], [])


def _find_witnesses(path: Path, content: dict[str, object], records: list[Mapping[str, object]]) -> None:
    """A witness passed at least one test of the group that is not a refusal; what it did not pass is excepted.

    A record that holds no test of a group says nothing about it: what is known of that backend stays.
    """
    before = json.loads(path.read_text("utf-8"))["groups"] if path.exists() else []
    if [group | {"witness": []} for group in before] != [group | {"witness": []} for group in content["groups"]]:
        raise QuantError(f"conformance.generate: {path.name} would change: write it, run the backends, then --witness")
    for group in content["groups"]:
        mine = [test["id"] for test in group["tests"] if test["expect"] is not None]
        kept = {witness["name"]: witness for witness in group["witness"]}
        for record in records:
            prefix = f"{content['algorithm']}:{group['name']}/"
            if not any(prefix + name in record["ran"] for name in mine):
                continue
            excepted = [name for name in mine if prefix + name not in record["passed"]]
            kept.pop(record["name"], None)
            if len(excepted) < len(mine):
                found = {"name": record["name"], "version": record["version"]}
                kept[record["name"]] = found | ({"except": excepted} if excepted else {})
        group["witness"] = [kept[name] for name in sorted(kept)]


def witness(record: Mapping[str, object]) -> dict[str, object]:
    """What `write` wants of a record of `run --json`: name, version, the ids of what it holds and of what passed."""
    ran = {outcome["test"] for outcome in record["outcomes"]}
    passed = {outcome["test"] for outcome in record["outcomes"] if outcome["status"] == PASS}
    return {"name": record["name"], "version": record["version"], "ran": ran, "passed": passed}


def unwitnessed(content: dict[str, object]) -> Iterator[tuple[str, list[str], int]]:
    """(group, ids of its tests that no witness passed, tests that count) of each group; refusals do not count."""
    for group in content["groups"]:
        counted = [test["id"] for test in group["tests"] if test["expect"] is not None]
        excepted = [set(witness.get("except", ())) for witness in group["witness"]]
        alone = set.intersection(*excepted) if excepted else set(counted)
        if counted:
            yield group["name"], [name for name in counted if name in alone], len(counted)
