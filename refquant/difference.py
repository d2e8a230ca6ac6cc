"""Difference: in how many codes and scales two results part, where first, and which rule of a format explains it.

    between(a, b)              two sets of arrays by name -> one PartDifference for each name
    tensors(a, b)              two QuantizedTensors, besides the fields in which their rules differ
    schemes(a, b, x)           two spellings on the same input; each differing field is tried alone: `explains` is the
                               part of the differing numbers that agree with b once a's rule has b's value of that field
    nearest(x, arrays, head)   which scheme of a head and its dialects gives these arrays, the closest first
    backends(a, b, x)          two functions x -> arrays by name: anything that encodes

Numbers are compared by their bits: -0 and +0 differ, and so do two kinds of NaN. A shape or dtype that differs counts
all numbers of the larger array.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from refquant.errors import QuantError
from refquant.heads import HEADS
from refquant.quantize import quantize
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class PartDifference:
    """One array of both sides. `first` is the index of the first number that differs, with both numbers as text."""

    name: str
    size: int
    differing: int
    first: tuple[int, ...] = ()
    numbers: tuple[str, str] = ("", "")
    remark: str = ""


@dataclass(frozen=True, slots=True)
class RuleDifference:
    """One field of two rules. `explains`: 1 if giving a the value of b makes all numbers equal, None if not tried."""

    field: str
    a: object
    b: object
    explains: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything in which two results part."""

    parts: tuple[PartDifference, ...]
    rules: tuple[RuleDifference, ...] = field(default=())

    @property
    def differing(self) -> int:
        """Numbers that are not the same."""
        return sum(part.differing for part in self.parts)

    @property
    def equal(self) -> bool:
        """Every bit is the same."""
        return self.differing == 0


def between(a: Arrays, b: Arrays) -> Difference:
    """The arrays of both by name; one that only one side has differs in all of its numbers."""
    return Difference(tuple(_part(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])))


def tensors(a: QuantizedTensor, b: QuantizedTensor) -> Difference:
    """Two QuantizedTensors; the fields in which their rules differ are listed, untried: the input is not known."""
    rules = [RuleDifference(*fields) for fields in _fields(a.scheme, b.scheme)]
    return Difference(between(arrays(a), arrays(b)).parts, tuple(rules))


def schemes(a: str | Scheme, b: str | Scheme, x: np.ndarray) -> Difference:
    """Quantize x by both, and try which differing field explains how much. Raises what quantize raises."""
    a, b = parse(a), parse(b)
    mine, theirs = arrays(quantize(x, a)), arrays(quantize(x, b))
    found = between(mine, theirs)
    rules = []
    for name, left, right in _fields(a, b):
        explains = None
        if found.differing:
            left_over = _with(a, name, right, x, theirs)
            explains = None if left_over is None else 1 - min(left_over / found.differing, 1)
        rules.append(RuleDifference(name, left, right, explains))
    return Difference(found.parts, tuple(rules))


def nearest(x: np.ndarray, wanted: Arrays, head: str) -> list[tuple[str, int]]:
    """(spelling, numbers that differ) for a head and each of its dialects at `wanted`'s input, the closest first.

    Only the arrays of `wanted` are compared. Raises SchemeError for an unknown head; a dialect that refuses x is left
    out.
    """
    base = parse(head)
    names = [str(base)] + [f"{head.partition('@')[0]}@{name}" for name in HEADS[base.head].dialects]
    found = []
    for name in dict.fromkeys(names):
        try:
            got = arrays(quantize(x, name))
        except QuantError:
            continue
        found.append((name, between({k: got.get(k) for k in wanted}, wanted).differing))
    return sorted(found, key=lambda pair: pair[1])


def backends(a: Callable[[np.ndarray], Arrays], b: Callable[[np.ndarray], Arrays], x: np.ndarray) -> Difference:
    """What two functions make of the same read-only x."""
    x = np.array(x)
    x.flags.writeable = False
    return between(a(x), b(x))


def arrays(tensor: QuantizedTensor) -> dict[str, np.ndarray]:
    """What a QuantizedTensor stores, by name; a constant zero point is left out."""
    found = {"codes": tensor.codes, "scale": tensor.scale, "zero_point": tensor.zero_point, **tensor.extras}
    return {name: array for name, array in found.items() if array is not None}


def _part(name: str, a: np.ndarray | None, b: np.ndarray | None) -> PartDifference:
    if a is None or b is None:
        only = a if b is None else b
        return PartDifference(name, only.size, only.size, remark=f"only in {'b' if a is None else 'a'}")
    if a.shape != b.shape or a.dtype != b.dtype:
        remark = f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"
        return PartDifference(name, max(a.size, b.size), max(a.size, b.size), remark=remark)
    wrong = _bits(a) != _bits(b)
    if not wrong.any():
        return PartDifference(name, a.size, 0)
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return PartDifference(name, a.size, int(wrong.sum()), place, (_shown(a[place]), _shown(b[place])))


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(array.shape)


def _shown(value: np.generic) -> str:
    return repr(float(value)) if value.dtype.kind == "f" else str(value)


def _fields(a: Scheme, b: Scheme) -> list[tuple[str, object, object]]:
    """(field, value of a, value of b) where two schemes differ."""
    found = []
    if a.granularity != b.granularity:
        found.append(("granularity", str(a.granularity), str(b.granularity)))
    if type(a.rule) is not type(b.rule):
        return [*found, ("format", a.head, b.head)]
    for each in dataclasses.fields(a.rule):
        left, right = getattr(a.rule, each.name), getattr(b.rule, each.name)
        if left != right:
            found.append((each.name, left, right))
    return found


def _with(a: Scheme, name: str, value: object, x: np.ndarray, theirs: Arrays) -> int | None:
    """Numbers that still differ when one field of a has b's value; None where that is no rule, or not for this x."""
    if name in ("granularity", "format"):
        return None
    try:
        changed = dataclasses.replace(a, rule=dataclasses.replace(a.rule, **{name: value}))
        return between(arrays(quantize(x, changed)), theirs).differing
    except QuantError:
        return None
