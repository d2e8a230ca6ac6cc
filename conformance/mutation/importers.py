"""Who imports whom in refquant, read from the sources: what must be imported anew when one file changes."""

import ast
from functools import cache

from conformance.mutation.mutants import ROOT, module_name


@cache
def _imports() -> dict[str, frozenset[str]]:
    """Module -> modules of refquant that importing it imports (imports inside functions do not count)."""
    files = {module_name(str(path.relative_to(ROOT))): path for path in sorted((ROOT / "refquant").rglob("*.py"))}
    return {name: frozenset(_of(ast.parse(path.read_text("utf-8"))) & files.keys()) for name, path in files.items()}


def _of(tree: ast.Module) -> set[str]:
    found = set()
    for node in _at_import(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _at_import(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from _at_import(child)


@cache
def direct(module: str) -> frozenset[str]:
    """The modules that import it."""
    return frozenset(name for name, imported in _imports().items() if module in imported)


@cache
def dependents(module: str) -> frozenset[str]:
    """The module and all that import it, or a module that does: all whose state may hold something of it."""
    found, new = set(), {module}
    while new:
        found |= new
        new = set().union(*(direct(name) for name in new)) - found
    return frozenset(found)
