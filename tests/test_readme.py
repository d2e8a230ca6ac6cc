"""The README is true: its Python prints what it says, its table is that of the registries, its files exist."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import readme

TEXT = readme.README.read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", TEXT, re.DOTALL)


def test_every_python_block_is_followed_by_its_output():
    assert len(EXAMPLES) == TEXT.count("```python\n") > 0


@pytest.mark.parametrize("code, ref", EXAMPLES)
def test_examples_print_what_the_readme_says(code, ref):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue().rstrip("\n") == ref.rstrip("\n")


def test_the_format_table_is_current():
    assert readme.current(TEXT) == TEXT, "run `make readme`"
    assert readme.formats() in TEXT


def test_every_file_that_is_named_exists():
    named = re.findall(r"`((?:refquant|runtime|conformance|tests)/[\w/.*]*)`|\]\(([^)]+)\)", TEXT)
    root = Path(readme.README).parent
    missing = [path for pair in named for path in pair if path and not list(root.glob(path))]
    assert named and not missing


def test_the_commands_of_make_are_in_the_makefile():
    makefile = (Path(readme.README).parent / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"\bmake (\w+)", TEXT)) - {"in"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_variables_are_those_that_the_project_reads():
    root = Path(readme.README).parent
    sources = [p for top in ("refquant", "runtime", "conformance", "tests") for p in (root / top).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r"""["'](REFQUANT_[A-Z_]+)["']""", path.read_text("utf-8"))}
    assert set(re.findall(r"^\| `(REFQUANT_\w+)`", TEXT, re.MULTILINE)) == read
