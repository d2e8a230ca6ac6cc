"""Vector files: conformance/vectors/v1/**/*.json, as records.

    file    {"algorithm", "schema", "generator", "numberOfTests", "notes": {flag: note}, "groups": [group]}
    group   {"name", "params": {...}, "witness": [{"name", "version"}], "tests": [test]}
    test    {"id", "op", "flags", "params", "inputs": {name: array}, "expect": {output: expectation} | null, "result"}

The full id of a test is `algorithm:group/id`. README.md is normative; schema/v1.json checks the form.
"""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from conformance.arrays import from_json
from refquant.errors import QuantError

ROOT = Path(__file__).parent / "vectors" / "v1"
VALID, INVALID, ACCEPTABLE = "valid", "invalid", "acceptable"


@dataclass(frozen=True)
class Test:
    """One test; arrays are read when they are asked for."""

    __test__ = False  # pytest: not one of yours

    algorithm: str
    group: str
    name: str
    op: str
    params: Mapping[str, object]
    flags: tuple[str, ...]
    result: str
    record: Mapping[str, object]
    folder: Path
    notes: Mapping[str, Mapping[str, str]]

    @property
    def id(self) -> str:
        """Unique in a version of the suite."""
        return f"{self.algorithm}:{self.group}/{self.name}"

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """Arrays by name, read-only."""
        return {name: from_json(array, self.folder) for name, array in self.record["inputs"].items()}

    @cached_property
    def expect(self) -> dict[str, dict[str, object]] | None:
        """Expectations by output, None where the backend must refuse."""
        stated = self.record["expect"]
        return None if stated is None else {name: self._expectation(each) for name, each in stated.items()}

    def _expectation(self, stated: Mapping[str, object]) -> dict[str, object]:
        read = lambda value: from_json(value, self.folder) if isinstance(value, dict) and "dtype" in value else value
        if "either" in stated:
            return {"either": [self._expectation(choice) for choice in stated["either"]]}
        return {word: read(value) for word, value in stated.items()}


def files(root: Path = ROOT) -> list[Path]:
    """All vector files in a fixed order."""
    found = sorted(root.rglob("*.json"))
    if not found:
        raise QuantError(f"conformance.vectors: {root} = no vector files, expected some")
    return found


def read(path: Path) -> Iterator[Test]:
    """The tests of one file in its order."""
    return tests(json.loads(path.read_text("utf-8")), path.parent)


def tests(content: Mapping[str, object], folder: Path) -> Iterator[Test]:
    """The tests of the content of a file that lies in `folder`."""
    for group in content["groups"]:
        for test in group["tests"]:
            yield Test(
                content["algorithm"],
                group["name"],
                test["id"],
                test["op"],
                {**group["params"], **test["params"]},
                tuple(test["flags"]),
                test["result"],
                test,
                folder,
                content["notes"],
            )


def select(pattern: str = "*", root: Path = ROOT) -> Iterator[Test]:
    """Tests whose full id, algorithm or `algorithm:group` matches the glob."""
    for path in files(root):
        for test in read(path):
            if any(fnmatch.fnmatchcase(name, pattern) for name in (test.id, test.algorithm, test.id.partition("/")[0])):
                yield test
