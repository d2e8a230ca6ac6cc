"""The faults: from one node of a syntax tree to what it is replaced by.

    constant     c + 1 where the whole part of c is even, c - 1 where it is odd, both in comparisons; True for False
    comparison   < to <=, > to >=, == to !=, `is` to `is not`, `in` to `not in`, and back
    rounding     half_even to half_away, floor to ceil ..., as functions and as words
    shift        << to >> and back
    bitwise      & to | and back, ^ to &
    arithmetic   + to -, * to /, // to *, and back; x += y and its like too
    logic        `and` to `or` and back, `not x` to x
    clip         np.clip(x, ...), np.minimum(x, y), max(x, y) ... to x
    magnitude    abs(x) to x
    dtype        float32 to float64, int32 to int16 ...: the next width, a narrower one for integers where there is one
    axis         axis=0 to axis=-1, others to axis=0
    check        `if ...: raise` and calls of require_...() are dropped

Nothing is made of docstrings, annotations, strings that are printed, and what follows `raise`: texts of errors are no
part of a rule. An operator is a function of a Site that yields (what to call it, the new node).
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Site:
    """A node and the place where it hangs: `setattr(parent, field, new)`, or item `index` of that list."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    function: str  # qualified name of the function around it, or the name that the module gives
    lines: tuple[int, int]  # of the statement around it as far as the node: what coverage must hit
    imported: bool  # runs when the file is imported

    def put(self, new: ast.AST) -> None:
        """Hang `new` where the node was. `put(node)` undoes it."""
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


Faults = Iterator[tuple[str, ast.AST]]
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
SHIFTS = {ast.LShift: ast.RShift, ast.RShift: ast.LShift}
BITWISE = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
ROUNDINGS = {
    "half_even": "half_away", "half_away": "half_even", "half_up": "half_down", "half_down": "half_up",
    "half_to_zero": "half_away", "toward_zero": "half_even",
}  # fmt: skip
NUMPY_ROUNDINGS = {"floor": "ceil", "ceil": "floor", "trunc": "floor", "rint": "trunc"}
LIMITS = {"clip", "minimum", "maximum", "min", "max", "fmin", "fmax"}
DTYPES = {
    "float16": "float32", "float32": "float64", "float64": "float32", "bfloat16": "float16",
    "int8": "int16", "int16": "int8", "int32": "int16", "int64": "int16",
    "uint8": "uint16", "uint16": "uint8", "uint32": "uint16", "uint64": "uint32",
    "<f2": "<f4", "<f4": "<f8", "<f8": "<f4", "u1": "<u2", "<u2": "u1", "<u4": "<u2", "i1": "<i2", "<i2": "i1",
    "<i4": "<i2", "<i8": "<i4",
}  # fmt: skip


def constant(site: Site) -> Faults:
    """A neighbour of c; not of an axis, which has its own operator."""
    node = site.node
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float) or _is_axis(site) or _guards(site):
        return
    if isinstance(node.value, bool):
        yield "not", ast.Constant(not node.value)
        return
    both, even = isinstance(site.parent, ast.Compare), int(node.value) % 2 == 0
    if even or both:
        yield "+1", _number(node.value + 1)
    if not even or both:
        yield "-1", _number(node.value - 1)


def _number(value: float) -> ast.AST:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def _guards(site: Site) -> bool:
    """frozen=True, slots=True, eq=False, maxsize=16, x.flags.writeable = False: what computes nothing."""
    if isinstance(site.parent, ast.keyword):
        return site.parent.arg in ("frozen", "slots", "eq", "maxsize")
    return isinstance(site.parent, ast.Assign) and getattr(site.parent.targets[0], "attr", "") == "writeable"


def _is_axis(site: Site) -> bool:
    return isinstance(site.parent, ast.keyword) and site.parent.arg == "axis"


def comparison(site: Site) -> Faults:
    """Each comparison of a chain on its own."""
    if isinstance(site.parent, ast.Compare) and site.field == "ops":
        yield "", COMPARISONS[type(site.node)]()


def shift(site: Site) -> Faults:
    """The other way."""
    yield from _operator(site, SHIFTS)


def bitwise(site: Site) -> Faults:
    """& and |."""
    yield from _operator(site, BITWISE)


def arithmetic(site: Site) -> Faults:
    """The opposite, roughly."""
    text = isinstance(site.parent, ast.BinOp) and any(
        isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str)
        for side in (site.parent.left, site.parent.right)
    )
    if not text:
        yield from _operator(site, ARITHMETIC)


def _operator(site: Site, table: dict[type, type]) -> Faults:
    if isinstance(site.parent, ast.BinOp | ast.AugAssign) and site.field == "op" and type(site.node) in table:
        yield "", table[type(site.node)]()


def rounding(site: Site) -> Faults:
    """Functions of rounding.py by name, wherever they are imported from, NumPy's, and words of a rule."""
    node = site.node
    if isinstance(node, ast.Name) and node.id in ROUNDINGS and isinstance(node.ctx, ast.Load):
        yield "", ast.parse(f"__import__('refquant.rounding').rounding.{ROUNDINGS[node.id]}", mode="eval").body
    elif isinstance(node, ast.Attribute) and node.attr in ROUNDINGS | NUMPY_ROUNDINGS:
        yield "", ast.Attribute(node.value, (ROUNDINGS | NUMPY_ROUNDINGS)[node.attr], node.ctx)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ROUNDINGS:
        yield "", ast.Constant(ROUNDINGS[node.value])


def clip(site: Site) -> Faults:
    """The first argument that is no number, instead of the limited one."""
    node = site.node
    if not isinstance(node, ast.Call) or _called(node) not in LIMITS:
        return
    method = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") != "np"
    if method and _called(node) == "clip":
        yield "", node.func.value
    elif not method and len(node.args) >= 2 and not any(isinstance(each, ast.Starred) for each in node.args):
        yield "", next((each for each in node.args if not isinstance(each, ast.Constant)), node.args[0])


def magnitude(site: Site) -> Faults:
    """abs dropped."""
    if isinstance(site.node, ast.Call) and _called(site.node) in ("abs", "fabs", "absolute") and site.node.args:
        yield "", site.node.args[0]


def dtype(site: Site) -> Faults:
    """np.float32 and the words "float32", "<f4"; not np.float32(2), a number that every type holds."""
    node = site.node
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "np" and node.attr in DTYPES:
        if not _small_integer(site):
            yield "", ast.Attribute(node.value, DTYPES[node.attr], node.ctx)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in DTYPES:
        yield "", ast.Constant(DTYPES[node.value])


def _small_integer(site: Site) -> bool:
    """Whether the node is the np.uint8 of np.uint8(4)."""
    if not isinstance(site.parent, ast.Call) or site.field != "func" or len(site.parent.args) != 1:
        return False
    number = _integer(site.parent.args[0])
    return number is not None and abs(number) < 128


def axis(site: Site) -> Faults:
    """The first for the last, and any other for the first."""
    if _is_axis(site) and (number := _integer(site.node)) is not None:
        yield "", _number(0 if number else -1)


def _integer(node: ast.AST) -> int | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if type(value) is int else None


def logic(site: Site) -> Faults:
    """`and`, `or`, `not`."""
    node = site.node
    if isinstance(node, ast.And | ast.Or):
        yield "", ast.Or() if isinstance(node, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "", node.operand


def check(site: Site) -> Faults:
    """A refusal dropped."""
    node = site.node
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "require" in _called(node.value):
        yield "", ast.Pass()
    elif isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
        yield "", ast.If(ast.Constant(False), node.body, node.orelse)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


OPERATORS: dict[str, Callable[[Site], Faults]] = {
    f.__name__: f
    for f in (
        constant, comparison, rounding, shift, bitwise, arithmetic, logic, clip, magnitude, dtype, axis, check,
    )
}  # fmt: skip
