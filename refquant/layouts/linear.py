"""Linear: the numbers of one linearly quantized weight, whatever file they came from. All integer layouts meet here.

    x^ = (codes - zero_point) * scale + offset         or, where `divide` is set,  (codes - zero_point) / scale + offset

    codes       (out, in) uint8, 0 .. 2^bits - 1: signed codes of a file have 2^(bits-1) added, and so has their zero
    scale       (out, groups) float32, exactly what the file holds in `dtype`
    zero_point  (out, groups) int16 or float32
    offset      (out, groups) float32, or None, which means none: the layouts with a minimum or bias have it
    group_size  inputs that share a scale; groups = ceil(in / group_size), the last may be shorter
    g_idx       (in,) int32, the group of every input where they are not neighbours (GPTQ's act-order); else None
    dtype       float16, bfloat16 or float32: how scale, offset and a float zero_point are stored
    shape       the shape of the weight where a row of codes is not one of its outputs (HQQ along axis 0); else None

Arithmetic  float32, one rounding an operation, in the order written; with an integer zero point, a float16 or bfloat16
            scale and no offset every step is exact.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError

DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """See the module. Building one checks every shape and range: ShapeError, RangeError, QuantError (dtypes)."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    bits: int
    group_size: int
    dtype: str = "float16"
    offset: np.ndarray | None = None
    g_idx: np.ndarray | None = None
    divide: bool = False
    shape: tuple[int, int] | None = None

    def __post_init__(self):
        if self.bits not in range(1, 9) or self.dtype not in DTYPES or self.group_size < 1:
            got = f"bits, dtype, group_size = {self.bits!r}, {self.dtype!r}, {self.group_size!r}"
            raise RangeError(f"Linear: {got}, expected 1 to 8, one of {', '.join(DTYPES)}, and at least 1")
        codes = self.codes
        if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.size:
            raise ShapeError(f"Linear: codes = {codes.dtype} {codes.shape}, expected uint8 (out, in)")
        if self.bits < 8 and int(codes.max()) >> self.bits:
            raise RangeError(f"Linear: codes.max() = {codes.max()}, expected codes below {1 << self.bits}")
        self._check_groups()
        if self.shape is not None and int(np.prod(self.shape)) != codes.size:
            raise ShapeError(f"Linear: shape = {self.shape}, expected {codes.size} weights")

    def _check_groups(self) -> None:
        outs, ins = self.codes.shape
        groups = -(-ins // self.group_size) if self.g_idx is None else self.scale.shape[-1]
        for name, kinds in (("scale", ("float32",)), ("zero_point", ("int16", "float32")), ("offset", ("float32",))):
            array = getattr(self, name)
            if array is None:
                continue
            if array.dtype.name not in kinds:
                raise QuantError(f"Linear: {name}.dtype = {array.dtype}, expected {' or '.join(kinds)}")
            if array.shape != (outs, groups):
                raise ShapeError(f"Linear: {name}.shape = {array.shape}, expected {(outs, groups)}")
        if self.g_idx is None:
            return
        if self.g_idx.shape != (ins,) or self.g_idx.dtype != np.int32:
            raise ShapeError(f"Linear: g_idx = {self.g_idx.dtype} {self.g_idx.shape}, expected int32 {(ins,)}")
        if self.g_idx.min() < 0 or self.g_idx.max() >= groups:
            raise RangeError(f"Linear: g_idx in {self.g_idx.min()}..{self.g_idx.max()}, expected 0..{groups - 1}")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return self.shape or self.codes.shape

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return self.scale.shape[1]

    @property
    def integer_zero(self) -> bool:
        """Whether zero_point counts in codes."""
        return self.zero_point.dtype == np.int16

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is the middle code, as a symmetric file implies it."""
        return self.integer_zero and self.offset is None and bool((self.zero_point == 1 << (self.bits - 1)).all())

    def dequantize(self) -> np.ndarray:
        """The weight, float32 (out, in), by the formula above; NaN and infinite scales give what they give."""
        with np.errstate(all="ignore"):
            x = self.codes - self.per_input(self.zero_point).astype(np.float32)
            scale = self.per_input(self.scale)
            x = x / scale if self.divide else x * scale
            if self.offset is not None:
                x += self.per_input(self.offset)
        return x.T.reshape(self.shape) if self.shape else x

    def per_input(self, values: np.ndarray) -> np.ndarray:
        """(out, groups) spread to (out, in)."""
        if self.g_idx is not None:
            return values[:, self.g_idx]
        return np.repeat(values, self.group_size, axis=1)[:, : self.codes.shape[1]]


def middle(bits: int, shape: tuple[int, int]) -> np.ndarray:
    """The zero points of a symmetric file: 2^(bits-1) everywhere, int16."""
    return np.full(shape, 1 << (bits - 1), np.int16)


def group_size_of(where: str, ins: int, groups: int, group_size: int | None = None) -> int:
    """The group size that a file means: the one that is said, or in / groups where that is whole. Raises ShapeError."""
    if group_size is None and ins % groups:
        raise ShapeError(f"{where}: groups = {groups} for {ins} inputs, expected a divisor: say group_size")
    size = group_size or ins // groups
    if size < 1 or -(-ins // size) != groups:
        raise ShapeError(f"{where}: groups = {groups} for {ins} inputs, expected {ins} / group_size {size}, rounded up")
    return size


def integers(where: str, linear: Linear) -> np.ndarray:
    """Integer zero points z with (codes - z) * scale the same numbers. Raises RangeError where there are none.

    An offset becomes -offset / scale, which must be an integer exactly. A group with scale 0 and offset 0 gets the
    middle code: any would do.
    """
    _require_multiplied(where, linear)
    if linear.offset is None and linear.integer_zero:
        return linear.zero_point
    zero = linear.zero_point.astype(np.float64)
    if linear.offset is not None:
        scale, offset = linear.scale.astype(np.float64), linear.offset.astype(np.float64)
        with np.errstate(all="ignore"):
            shift = np.where((scale == 0) & (offset == 0), zero - (1 << (linear.bits - 1)), offset / scale)
            zero = np.where(shift * scale == offset, zero - shift, np.nan)  # the quotient may have been rounded
    whole = np.floor(zero) == zero
    if not whole.all() or np.abs(zero).max() > 2**14:
        row, group = (int(i) for i in np.argwhere(~(whole & (np.abs(zero) <= 2**14)))[0])
        if linear.offset is None:
            what = f"zero_point[{row}, {group}] = {zero[row, group]:.7g}"
        else:
            said = f"{linear.offset[row, group]:.7g} / {linear.scale[row, group]:.7g}"
            what = f"offset / scale of group [{row}, {group}] = {said}"
        raise RangeError(f"{where}: {what}, expected an integer: the minimum of this group is no multiple of its scale")
    return zero.astype(np.int16)


def offsets(where: str, linear: Linear) -> np.ndarray:
    """Offsets m with codes * scale + m the same numbers, as float32 that `dtype` holds. Raises RangeError."""
    _require_multiplied(where, linear)
    exact = -linear.zero_point.astype(np.float64) * linear.scale.astype(np.float64)
    if linear.offset is not None:
        exact = exact + linear.offset
    values = (exact + 0.0).astype(np.float32)  # + 0 turns -0 into 0
    if not (values == exact).all():
        raise RangeError(
            f"{where}: zero_point * scale needs more than the 24 bits of float32, expected an exact offset"
        )
    return values


def neighbours(where: str, linear: Linear, what: str) -> None:
    """Refuse what a layout without g_idx, or whose rows are the outputs, cannot say."""
    if linear.shape is not None:
        raise RangeError(
            f"{where}: groups run across the outputs, expected groups along the inputs, as {what} has them"
        )
    if linear.g_idx is not None:
        first = int(np.argmax(linear.g_idx != np.arange(len(linear.g_idx)) // linear.group_size))
        got = f"g_idx[{first}] = {linear.g_idx[first]}"
        raise RangeError(f"{where}: {got}, expected groups of neighbouring inputs: {what} has no act-order")


def _require_multiplied(where: str, linear: Linear) -> None:
    if linear.divide:
        raise RangeError(f"{where}: this layout divides by its scale, expected one that multiplies: 1/scale is rounded")
