"""The house rules that a program can check. Every check is a function of one file's text, and is shown to fail."""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("refquant", "runtime", "conformance")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "misc"}
BUDGET = 450  # lines of a file; files of data alone have none
DATA = re.compile(r"grids|tables")
STANDARD = frozenset(sys.stdlib_module_names)
KERNEL = "kernel"  # the decorator that compiles

# who may be imported: (anywhere in a file, inside functions only)
EXTRAS = {"tokenizers", "sentencepiece", "jinja2", "ml_dtypes", "yaml", "distributed", "dask"}
TERMINAL = {"rich", "prompt_toolkit"}
ARROWS = {
    "refquant": ({"numpy", "refquant"}, EXTRAS),
    "runtime": ({"numpy", "numba", "llvmlite", "refquant", "runtime"} | TERMINAL, EXTRAS | TERMINAL),
    "conformance": ({"numpy", "refquant", "conformance"}, set()),
    "conformance/adapters": ({"numpy", "refquant", "conformance"}, None),  # None: any backend
}


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


def imports(tree: ast.AST) -> list[tuple[str, bool, int]]:
    """(top-level package, whether importing the file leaves it alone, line) of every import."""
    later = {id(node) for owner in ast.walk(tree) if _runs_later(owner) for node in ast.walk(owner)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in later, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module.split(".")[0], id(node) in later, node.lineno))
    return found


def _runs_later(node: ast.AST) -> bool:
    """A function, or `if TYPE_CHECKING:` without else."""
    if isinstance(node, ast.If):
        return getattr(node.test, "id", "") == "TYPE_CHECKING" and not node.orelse
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def wrong_arrows(text: str, anywhere: set[str], in_functions: set[str] | None) -> list[str]:
    """Imports beyond the standard library that a file may not have."""
    wrong = []
    for name, inside, line in imports(ast.parse(text)):
        allowed = name in STANDARD or name in anywhere or (inside and (in_functions is None or name in in_functions))
        if not allowed:
            wrong.append(f"line {line} imports {name}{' inside a function' if inside else ''}")
    return wrong


def kernels_without_twin(text: str) -> list[str]:
    """Files with kernels and without a NumPy twin; the products of gemm*.py have theirs in the file of each type."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    compiled = [f.name for f in functions if any(_name(d) == KERNEL for d in f.decorator_list)]
    twins = [f.name for f in functions if f.name.endswith("_numpy")]
    shared = all(name.startswith("gemm_") for name in compiled)
    return [f"{', '.join(compiled)}: no twin"] if compiled and not twins and not shared else []


def _name(decorator: ast.expr) -> str:
    """`kernel` of @kernel, @jit.kernel and @kernel(...)."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def forbidden_calls(text: str) -> list[str]:
    """Floating point that the compiler may reorder."""
    return [
        f"line {node.lineno} sets fastmath"
        for node in ast.walk(ast.parse(text))
        if (
            isinstance(node, ast.keyword) and node.arg == "fastmath" and getattr(node.value, "value", True) is not False
        )
        or (isinstance(node, ast.Constant) and node.value == "fastmath")
    ]


def bare_rounding(text: str) -> list[str]:
    """np.round, np.rint, np.around and x.round(): rounding has a name, in rounding.py."""
    return [
        f"line {node.lineno} calls {node.attr}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in ("round", "rint", "around", "round_")
    ]


def leftovers(text: str) -> list[str]:
    """Stubs, notes to oneself, errors that vanish, names from nowhere."""
    tree = ast.parse(text)
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc):
            found.append(f"line {line} has NotImplementedError")
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or _name(node.type) in ("Exception", "BaseException")
            if node.type is None:
                found.append(f"line {line} has a bare except")
            elif broad and all(isinstance(statement, ast.Pass) for statement in node.body):
                found.append(f"line {line} swallows {_name(node.type)}")
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            found.append(f"line {line} imports *")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string):
            found.append(f"line {token.start[0]} has {token.string.strip()}")
    return found


def machine_paths(text: str) -> list[str]:
    """Folders of one computer."""
    return re.findall(r"""["'\s(](/(?:work|opt|root|home)/[\w./-]*)""", text)


def undocumented(text: str) -> list[str]:
    """A module and its public functions and classes without a docstring."""
    tree = ast.parse(text)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    nodes = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    missing = [f"{node.name} has no docstring" for node in nodes if not ast.get_docstring(node)]
    return ([] if ast.get_docstring(tree) or not tree.body else ["the module has no docstring"]) + missing


def too_long(text: str) -> list[str]:
    """Files beyond the budget."""
    lines = text.count("\n")
    return [f"{lines} lines, expected at most {BUDGET}"] if lines > BUDGET else []


def arrow_rule(path: Path) -> tuple[set[str], set[str] | None]:
    folder = "/".join(path.relative_to(ROOT).parts[:2])
    return (
        ARROWS["conformance/adapters"] if folder == "conformance/adapters" else ARROWS[path.relative_to(ROOT).parts[0]]
    )


def complaints(check, paths: list[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT)}: {c}" for path in paths for c in check(path.read_text(encoding="utf-8"))]


def test_imports_follow_the_arrows():
    wrong = [
        f"{path.relative_to(ROOT)}: {c}"
        for path in files(*PACKAGES)
        for c in wrong_arrows(path.read_text(encoding="utf-8"), *arrow_rule(path))
    ]
    assert wrong == []


def test_naive_references_import_the_standard_library_only():
    paths = [path for path in files("tests") if path.name.startswith("naive")]
    assert paths
    siblings = {path.stem for path in paths}
    assert complaints(lambda text: wrong_arrows(text, siblings, siblings), paths) == []


def test_every_kernel_has_a_numpy_twin_in_its_file():
    assert complaints(kernels_without_twin, files("runtime/kernels")) == []


def test_nothing_may_reorder_floating_point():
    assert complaints(forbidden_calls, files(*PACKAGES)) == []


def test_only_rounding_rounds():
    paths = [path for path in files("refquant") if path != ROOT / "refquant" / "rounding.py"]
    assert complaints(bare_rounding, paths) == []


def test_files_are_named_for_what_they_are():
    paths = files(*PACKAGES, "tests")
    assert [str(path.relative_to(ROOT)) for path in paths if path.stem in FORBIDDEN_NAMES] == []
    assert [str(path.parent.relative_to(ROOT)) for path in files("tests") if path.name == "__init__.py"] == []


def test_files_stay_within_their_budget():
    paths = [path for path in files(*PACKAGES, "tests") if not DATA.search(path.stem)]
    assert complaints(too_long, paths) == []


def test_nothing_is_left_over():
    assert complaints(leftovers, files(*PACKAGES, "tests")) == []


def test_no_file_knows_the_folders_of_one_computer():
    assert complaints(machine_paths, files(*PACKAGES, "tests")) == []


def test_everything_public_is_documented():
    assert complaints(undocumented, files("refquant")) == []


def test_the_tree_that_is_checked_is_the_tree_that_is_there():
    found = files(*PACKAGES)
    assert ROOT / "refquant" / "rounding.py" in found
    assert len(found) > 30


ADAPTER = ARROWS["conformance/adapters"]


@pytest.mark.parametrize(
    "check, text, complaint",
    [
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "import numba", "imports numba"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "from runtime.model import Model", "imports runtime"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "import jinja2", "imports jinja2"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "if x:\n import jinja2", "imports jinja2"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "def f():\n import torch", "imports torch inside"),
        (lambda t: wrong_arrows(t, *ARROWS["runtime"]), "import conformance.x", "imports conformance"),
        (lambda t: wrong_arrows(t, *ADAPTER), "import gguf", "imports gguf"),
        (lambda t: wrong_arrows(t, set(), set()), "import numpy", "imports numpy"),
        (kernels_without_twin, "@kernel\ndef dot(x): ...", "dot: no twin"),
        (kernels_without_twin, "@jit.kernel(inline=True)\ndef dot(x): ...", "dot: no twin"),
        (forbidden_calls, "@njit(fastmath=True)\ndef f(): ...", "fastmath"),
        (forbidden_calls, "@njit(fastmath={'reassoc'})\ndef f(): ...", "fastmath"),
        (forbidden_calls, "njit(**{'fastmath': True})", "fastmath"),
        (bare_rounding, "np.rint(x)", "calls rint"),
        (bare_rounding, "x.round(2)", "calls round"),
        (leftovers, "raise NotImplementedError", "NotImplementedError"),
        (leftovers, "try:\n f()\nexcept:\n g()", "bare except"),
        (leftovers, "try:\n f()\nexcept Exception:\n pass", "swallows Exception"),
        (leftovers, "x = 1  # TO" + "DO later", "has # TO" + "DO later"),
        (leftovers, "from numpy import *", "imports *"),
        (machine_paths, "p = '/" + "home/me/x'", "/" + "home/me/x"),
        (undocumented, "def f(): ...", "f has no docstring"),
        (undocumented, "'''doc'''\nclass A: ...", "A has no docstring"),
        (undocumented, "x = 1", "the module has no docstring"),
        (too_long, "\n" * (BUDGET + 1), "expected at most"),
    ],
)
def test_every_check_can_fail(check, text, complaint):
    assert any(complaint in c for c in check(text))


@pytest.mark.parametrize(
    "check, text",
    [
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "import json\nimport numpy as np\ndef f():\n import jinja2"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "from . import errors"),
        (lambda t: wrong_arrows(t, *ARROWS["refquant"]), "if TYPE_CHECKING:\n import tokenizers"),
        (lambda t: wrong_arrows(t, *ADAPTER), "def run():\n import runtime, gguf"),
        (kernels_without_twin, "@kernel\ndef dot(x): ...\ndef dot_numpy(x): ...\ndef plain(): ..."),
        (forbidden_calls, "@njit(fastmath=False)\ndef f(): ..."),
        (bare_rounding, "from refquant.rounding import half_even\nhalf_even(x)"),
        (leftovers, "try:\n f()\nexcept ValueError:\n pass"),
        (machine_paths, "'a/work/b', '/tmp'"),
        (undocumented, "'''doc'''\ndef _private(): ...\ndef f():\n 'doc'"),
        (too_long, "\n" * BUDGET),
    ],
)
def test_no_check_fails_on_what_is_allowed(check, text):
    assert check(text) == []
