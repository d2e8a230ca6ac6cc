"""The pages of docs/ name tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent / "refquant"
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "divergences.md"


def test_every_divergence_names_tests_that_exist():
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 30
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text("utf-8"), (file, test)


def test_the_page_of_checkpoints_names_tests_that_exist_and_a_recipe_that_is_read():
    from refquant.pipeline import recipe

    text = (DOCS / "checkpoints.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 15
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text("utf-8"), (file, test)
    (said,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    methods = [modifier.method for modifier in recipe.read(said).modifiers]
    assert methods == ["smoothquant", "gptq", "gptq"]
