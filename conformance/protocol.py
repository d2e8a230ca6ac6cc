"""What an adapter is, and what can come of a test.

An adapter is a module of conformance/adapters (or any object) with

    NAME       what reports call it: "gguf-py"
    version()  of the backend that is installed; raises Unsupported where it is not
    run(algorithm, op, params, inputs) -> outputs

`algorithm` names a family and a member ("gguf.Q4_0"), `op` what is done ("encode"), `params` are JSON values (scheme,
group size ...), inputs and outputs are arrays by name. Which names an algorithm takes and gives is in README.md. It
raises Unsupported for what the backend does not know, Refused for input that the backend rejects as it should.
Adapters import their backend inside functions: listing them must not need any installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

PASS, FAIL, ERROR, SKIP = "pass", "fail", "error", "skip"
Arrays = Mapping[str, np.ndarray]


class Unsupported(Exception):
    """The backend has no such algorithm, or is not installed. The test is skipped; the text says why."""


class Refused(Exception):
    """The backend rejected the input with an error of its own."""


class Adapter(Protocol):
    """A backend under test."""

    NAME: str

    def version(self) -> str:
        """Of the package or program that is tested."""
        ...

    def run(self, algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> Arrays:
        """The outputs of one test."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test, run once: its full id, pass | fail | error | skip, and why.

    bits: where bytes were compared, those around the first that differs: {"output", "at", "got", "expected"} as hex.
    """

    test: str
    status: str
    reason: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    bits: Mapping[str, object] | None = None
