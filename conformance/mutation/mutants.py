"""Mutants: every fault that the operators make of a file, one at a time, with an id that survives moved lines.

    refquant/mx_scale.py::exponents::comparison::amax == 0 -> amax != 0
    refquant/awq.py::_grid::constant+1::i / 20 -> i / 21 [2]        the second such fault of this function

An id names the file, the function, the operator, and the expression around the fault before and after.
"""

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from conformance.mutation.operators import OPERATORS, Site

ROOT = Path(__file__).resolve().parents[2]
MODULE = "<module>"
UNTOUCHED = {"annotation", "returns", "type_comment", "ctx", "exc", "msg", "bases"}
PRINTED = {"summary", "__repr__", "__str__", "__doc__"}  # functions whose results are for reading
EXCERPT = 90


@dataclass(frozen=True)
class Mutant:
    """One fault. `place` and `variant` say how to make it again from the same file."""

    id: str
    file: str  # refquant/mx_scale.py
    function: str
    operator: str
    line: int
    lines: tuple[int, int]
    imported: bool  # runs when the file is imported
    place: int  # number of the site
    variant: int  # number of the fault that its operator makes there

    @property
    def module(self) -> str:
        """refquant.mx_scale"""
        return module_name(self.file)


def module_name(file: str) -> str:
    """refquant/gguf/__init__.py -> refquant.gguf"""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def of_text(text: str, file: str) -> list[Mutant]:
    """Every mutant of a source text, in the order of its tree."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for place, site in enumerate(sites(ast.parse(text))):
        for name, operator in OPERATORS.items():
            for variant, (label, new) in enumerate(operator(site)):
                before = _excerpt(site)
                site.put(new)
                after = _excerpt(site)
                site.put(site.node)
                identity = f"{file}::{site.function}::{name}{label}::{before} -> {after}"
                seen[identity] = seen.get(identity, 0) + 1
                if seen[identity] > 1:
                    identity += f" [{seen[identity]}]"
                line = getattr(site.node, "lineno", getattr(site.parent, "lineno", site.lines[0]))
                found.append(
                    Mutant(identity, file, site.function, name, line, site.lines, site.imported, place, variant)
                )
    return found


@cache
def source(file: str) -> str:
    """The text of a file of the repository, read once: the tree does not change under the mutants."""
    return (ROOT / file).read_text("utf-8")


@cache
def _parsed(file: str) -> tuple[ast.Module, tuple[Site, ...]]:
    whole = ast.parse(source(file))
    return whole, tuple(sites(whole))


@cache
def of_file(file: str) -> tuple[Mutant, ...]:
    """Every mutant of a file of the repository, given as refquant/x.py."""
    return tuple(of_text(source(file), file))


def code(mutant: Mutant) -> CodeType:
    """The file, compiled with the fault in it."""
    whole, places = _parsed(mutant.file)
    site = places[mutant.place]
    new = list(OPERATORS[mutant.operator](site))[mutant.variant][1]
    for node in ast.walk(new):
        if hasattr(site.node, "lineno") and not hasattr(node, "lineno"):
            ast.copy_location(node, site.node)
    site.put(new)
    try:
        return compile(whole, str(ROOT / mutant.file), "exec", dont_inherit=True)
    finally:
        site.put(site.node)


def prepare(file: str) -> None:
    """Parse a file now, so that forked processes need not."""
    _parsed(file)


def sites(root: ast.Module) -> Iterator[Site]:
    """Every node that an operator may look at, outermost first."""
    yield from _below(root, Place(MODULE, (0, 0), True))


class Place(NamedTuple):
    """Where a node stands: the function (or the table of the module), the lines of its statement, what it runs in."""

    function: str
    lines: tuple[int, int]
    imported: bool  # runs when the file is imported


def _below(parent: ast.AST, place: Place) -> Iterator[Site]:
    for field, value in ast.iter_fields(parent):
        if field in UNTOUCHED:
            continue
        several = isinstance(value, list)
        for index, node in enumerate(value if several else [value]):
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr) or _is_docstring(node):
                continue
            here = _enter(node, parent, field, place)
            if here is not None:
                yield Site(node, parent, field, index if several else None, *here)
                yield from _below(node, here)


def _enter(node: ast.AST, parent: ast.AST, field: str, place: Place) -> Place | None:
    """The place of `node`; None where its text is only read."""
    function, lines, imported = place
    if isinstance(parent, ast.FunctionDef | ast.Lambda) and field == "body":
        imported = False
    if isinstance(parent, ast.FunctionDef | ast.ClassDef) and field == "body":
        function = parent.name if function == MODULE else f"{function}.{parent.name}"
        if parent.name in PRINTED:
            return None
    if isinstance(parent, ast.If) and field == "body" and isinstance(parent.body[-1], ast.Raise):
        return None  # what is computed there goes into the message
    if isinstance(parent, ast.FunctionDef) and field == "body" and node in _before_raise(parent.body):
        return None
    if isinstance(node, ast.Assign | ast.AnnAssign) and function == MODULE:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        function = getattr(target, "id", MODULE)
    if isinstance(node, ast.stmt):
        lines = (node.lineno, node.lineno)
    if isinstance(node, ast.expr | ast.keyword):
        lines = (lines[0], max(lines[1], node.end_lineno))
    return Place(function, lines, imported)


def _before_raise(body: list[ast.stmt]) -> list[ast.stmt]:
    """The assignments at the end of a function that ends by raising an error: they make its message."""
    if not isinstance(body[-1], ast.Raise):
        return []
    return list(itertools.takewhile(lambda node: isinstance(node, ast.Assign), reversed(body[:-1])))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _excerpt(site: Site) -> str:
    """The parent as code where that is short, else the node."""
    text = "" if isinstance(site.node, ast.stmt) else _code(site.parent)
    if not 0 < len(text) <= EXCERPT and isinstance(site.node, ast.expr | ast.stmt):
        value = getattr(site.parent, site.field)
        text = _code(value if site.index is None else value[site.index])
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def _code(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}:"
    if isinstance(node, ast.Module) or (hasattr(node, "body") and isinstance(node, ast.stmt)):
        return ""
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
