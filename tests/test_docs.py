"""The pages of docs/ name tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent / "refquant"
PAGE = Path(__file__).parents[1] / "docs" / "divergences.md"


def test_every_divergence_names_tests_that_exist():
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 30
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text("utf-8"), (file, test)
