"""Floating: the numbers of one weight quantized to small floats, whatever file they came from.

    x^ = ELEMENT[codes] * s        s = SCALE[scale], then * tensor_scale, or / tensor_scale where `divide` is set

    codes         (out, in) uint8, the bit patterns of `element`: e2m1, e2m3, e3m2, e4m3fn or e5m2
    scale         what is stored: uint8 of e4m3fn or e8m0, or float32 values of float32, float16, bfloat16 (scale_dtype)
    block         (rows, columns) of weights under one scale; scale has the shape of the blocks, rounded up
    tensor_scale  one float32, or None

Arithmetic    float32: the scale first (SCALE * or / tensor_scale is rounded once), then its product with the element.
Values        of elements and of e4m3fn and e8m0 scales: minifloat.py.
"""

from dataclasses import dataclass

import numpy as np

from refquant import minifloat
from refquant.errors import QuantError, RangeError, ShapeError

ELEMENTS = ("e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2")
SCALES = ("e4m3fn", "e8m0", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, eq=False)
class Floating:
    """See the module. Building one checks every shape and range: ShapeError, RangeError, QuantError (dtypes)."""

    codes: np.ndarray
    element: str
    scale: np.ndarray
    scale_dtype: str
    block: tuple[int, int]
    tensor_scale: np.float32 | None = None
    divide: bool = False

    def __post_init__(self):
        if self.element not in ELEMENTS or self.scale_dtype not in SCALES or min(self.block) < 1:
            got = f"element, scale_dtype, block = {self.element!r}, {self.scale_dtype!r}, {self.block}"
            raise RangeError(f"Floating: {got}, expected {', '.join(ELEMENTS)}; {', '.join(SCALES)}; positive lengths")
        if self.codes.dtype != np.uint8 or self.codes.ndim != 2 or not self.codes.size:
            raise ShapeError(f"Floating: codes = {self.codes.dtype} {self.codes.shape}, expected uint8 (out, in)")
        if self.bits < 8 and int(self.codes.max()) >> self.bits:
            raise RangeError(f"Floating: codes.max() = {self.codes.max()}, expected codes below {1 << self.bits}")
        kind = np.uint8 if self.scale_dtype in ELEMENTS or self.scale_dtype == "e8m0" else np.float32
        wanted = tuple(-(-n // b) for n, b in zip(self.codes.shape, self.block))
        if self.scale.dtype != kind:
            raise QuantError(f"Floating: scale.dtype = {self.scale.dtype}, expected {np.dtype(kind)}")
        if self.scale.shape != wanted:
            raise ShapeError(
                f"Floating: scale.shape = {self.scale.shape}, expected {wanted} for blocks of {self.block}"
            )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return minifloat.FORMATS[self.element].bits

    def scales(self) -> np.ndarray:
        """The factor of every block, float32, tensor_scale included."""
        scale = self.scale if self.scale.dtype == np.float32 else table(self.scale_dtype)[self.scale]
        if self.tensor_scale is None:
            return scale
        with np.errstate(all="ignore"):
            return scale / self.tensor_scale if self.divide else scale * self.tensor_scale

    def dequantize(self) -> np.ndarray:
        """The weight, float32 (out, in)."""
        rows, columns = self.block
        spread = np.repeat(np.repeat(self.scales(), rows, axis=0), columns, axis=1)
        with np.errstate(all="ignore"):
            return table(self.element)[self.codes] * spread[: self.codes.shape[0], : self.codes.shape[1]]


def table(element: str) -> np.ndarray:
    """The value of every bit pattern, float32, read-only."""
    return minifloat.values(minifloat.FORMATS[element])
