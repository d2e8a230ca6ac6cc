"""equivalents.txt: mutants that no vector can kill, because they compute the same, each with the reason.

    refquant/mx.py::_SLAB::constant*::*    how many rows are done at a time changes no value

Fields are separated by two or more spaces; a star stands for any text, nothing else is special; lines that start with #
are comments. A mutant that a line covers and that a test kills nevertheless counts as killed. A line that covers no
survivor of a full run is reported, so that the list stays true.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from refquant.errors import QuantError

PATH = Path(__file__).with_name("equivalents.txt")


@dataclass(frozen=True)
class Equivalent:
    """Mutants of one kind."""

    pattern: str
    reason: str

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(".*".join(re.escape(part) for part in self.pattern.split("*")))

    def covers(self, mutant: str) -> bool:
        """Whether the mutant of this id is one of them."""
        return self._expression.fullmatch(mutant) is not None


def read(path: Path = PATH) -> list[Equivalent]:
    """The list. Raises QuantError for a line without a reason."""
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, _, reason = line.strip().partition("  ")
        if not reason.strip():
            raise QuantError(f"{path.name}:{number}: reason = none, expected one after two spaces")
        found.append(Equivalent(pattern, reason.strip()))
    return found
