"""Expected failures: known/<backend>.txt, one a line: a glob of test ids, the reason, a link.

    gguf.MXFP4:random/*    the exponent of a block below 2^-126 wraps    https://github.com/...

Fields are separated by two or more spaces or a tab; lines that start with # are comments. A failure that is known does
not fail a run; a known failure that passes is reported, so that the list stays true.
"""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from refquant.errors import QuantError

FOLDER = Path(__file__).parent / "known"


@dataclass(frozen=True, slots=True)
class Known:
    """Failures of one cause."""

    pattern: str
    reason: str
    link: str

    def covers(self, test: str) -> bool:
        """Whether the test with this full id is one of them."""
        return fnmatch.fnmatchcase(test, self.pattern)


def read(backend: str, folder: Path = FOLDER) -> list[Known]:
    """The known failures of a backend; none where there is no file. Raises QuantError for a line without a reason."""
    path = folder / f"{backend}.txt"
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = re.split(r"\t+|\s{2,}", line.strip())
        if len(fields) != 3:
            raise QuantError(f"{path.name}:{number}: fields = {len(fields)}, expected pattern, reason and link")
        found.append(Known(*fields))
    return found
