"""bitsandbytes checkpoints: NF4 and FP4 with their quant_state, and int8 rows (LLM.int8()).

4 bits, for a weight named `weight`; blocks run over the flattened weight and may cross its rows:

    weight                                uint8 (ceil(n / 2), 1)   AAAABBBB: A = weight 2i, the FIRST in the high
                                          nibble; an odd count ends in the code of 0. Also viewed as a float dtype
                                          (quant_storage)
    weight.absmax                         float32 (blocks,), or uint8 (blocks,) if nested
    weight.quant_map                      float32 (16,), the value of every code
    weight.nested_absmax                  float32 (ceil(blocks / 256),)      nested only
    weight.nested_quant_map               float32 (256,)                     nested only
    weight.quant_state.bitsandbytes__nf4  uint8: JSON of quant_type, blocksize, dtype, shape, nested_blocksize,
                                          nested_dtype, nested_offset;  or ...__fp4

    x^ = quant_map[code] * absmax         nested: absmax = nested_quant_map[a] * nested_absmax[b // 256] + nested_offset

int8:

    weight          int8 (out, in)
    SCB             float32 (out,)        max|x| of the row, not divided by 127
    weight_format   uint8 (), 0 = "row"   the only one since 0.45

    x^ = (q * SCB) * (1 / 127), both products and the constant in float32, in this order

Arithmetic  float32, an operation at a time.
Differs     the CPU library of 0.50.2 takes absmax[row * (in // blocksize) + column // blocksize]: it decodes a weight
            whose rows are no multiple of the block wrongly. Other back ends count along the flat weight.
Source      bitsandbytes 0.50.2 functional.py (QuantState), backends/default/ops.py, nn/modules.py (Linear8bitLt).
"""

import json
import math
from dataclasses import dataclass

import numpy as np

from refquant import bits as streams
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts.arrays import Arrays, field

STATE = "weight.quant_state.bitsandbytes__"
TYPES = ("nf4", "fp4")
ZERO = {"nf4": np.uint8(7), "fp4": np.uint8(0)}  # the code of 0
STORAGE = ("uint8", "uint16", "bfloat16", "float16", "float32")
INVERSE_127 = np.float32(7.874015718698502e-3)
MAX_JSON = 1 << 16
LARGEST = 1 << 40  # weights of a tensor; what claims more is hostile or broken


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """Block maxima in 8 bits: absmax = quant_map[codes] * absmax of blocks of `blocksize` + offset."""

    codes: np.ndarray  # uint8 (blocks,)
    absmax: np.ndarray  # float32 (ceil(blocks / blocksize),)
    quant_map: np.ndarray  # float32 (256,)
    offset: float  # a float32
    blocksize: int = 256

    def __post_init__(self):
        count = -(-len(self.codes) // max(self.blocksize, 1))
        got = self.codes.dtype.name, self.absmax.shape, self.quant_map.shape
        if got != ("uint8", (count,), (256,)) or self.codes.ndim != 1 or self.blocksize < 1:
            raise ShapeError(
                f"bitsandbytes.Nested: codes, absmax, quant_map, blocksize = {(*got, self.blocksize)}, "
                f"expected uint8, ({count},), (256,), at least 1"
            )

    def decode(self) -> np.ndarray:
        """The block maxima, float32 (blocks,)."""
        with np.errstate(all="ignore"):
            outer = np.repeat(self.absmax, self.blocksize)[: len(self.codes)]
            return self.quant_map[self.codes] * outer + np.float32(self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class FourBit:
    """One NF4 or FP4 weight. `codes` is flat, uint8 (n,); `absmax` is float32 (blocks,) or Nested."""

    codes: np.ndarray
    absmax: np.ndarray | Nested
    quant_map: np.ndarray
    quant_type: str
    blocksize: int
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self):
        n = math.prod(self.shape)
        if self.quant_type not in TYPES or self.blocksize < 1 or self.quant_map.shape != (16,):
            got = f"quant_type, blocksize, quant_map = {self.quant_type!r}, {self.blocksize}, {self.quant_map.shape}"
            raise RangeError(f"bitsandbytes.FourBit: {got}, expected nf4 or fp4, at least 1, (16,)")
        if self.codes.shape != (n,) or self.codes.dtype != np.uint8 or not n:
            raise ShapeError(
                f"bitsandbytes.FourBit: codes = {self.codes.shape}, expected uint8 ({n},) for {self.shape}"
            )
        if int(self.codes.max()) > 15:
            raise RangeError(f"bitsandbytes.FourBit: codes.max() = {self.codes.max()}, expected codes below 16")
        have = self.absmax.codes.shape if isinstance(self.absmax, Nested) else self.absmax.shape
        if have != (-(-n // self.blocksize),):
            raise ShapeError(f"bitsandbytes.FourBit: absmax.shape = {have}, expected ({-(-n // self.blocksize)},)")

    def dequantize(self) -> np.ndarray:
        """The weight, float32 of `shape`; bitsandbytes narrows it to `dtype` afterwards."""
        absmax = self.absmax.decode() if isinstance(self.absmax, Nested) else self.absmax
        with np.errstate(all="ignore"):
            x = self.quant_map[self.codes] * np.repeat(absmax, self.blocksize)[: self.codes.size]
        return x.reshape(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class RowInt8:
    """One LLM.int8() weight: codes int8 (out, in), absmax float32 (out,)."""

    codes: np.ndarray
    absmax: np.ndarray

    def __post_init__(self):
        got = self.codes.dtype.name, self.codes.ndim, self.absmax.dtype.name, self.absmax.shape
        if got != ("int8", 2, "float32", self.codes.shape[:1]) or not self.codes.size:
            raise ShapeError(f"bitsandbytes.RowInt8: codes, absmax = {got}, expected int8 (out, in), float32 (out,)")

    def dequantize(self) -> np.ndarray:
        """The weight, float32 (out, in)."""
        with np.errstate(all="ignore"):
            return self.codes * self.absmax[:, None] * INVERSE_127


def unpack(arrays: Arrays) -> FourBit:
    """Read one 4-bit weight. Raises QuantError (missing, dtype, JSON that is not what it should be), ShapeError."""
    where = "bitsandbytes.unpack"
    found = [name for name in TYPES if STATE + name in arrays]
    if len(found) != 1:
        raise QuantError(f"{where}: {len(found)} quant states, expected one of {STATE}nf4 and ...fp4")
    state = _state(where, field(where, arrays, STATE + found[0], "uint8", (None,)))
    shape, n = state["shape"], math.prod(state["shape"])
    data = field(where, arrays, "weight", STORAGE, None)
    packed = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    if packed.size != -(-n // 2):
        raise ShapeError(f"{where}: weight has {packed.size} bytes, expected {-(-n // 2)} for {shape}")
    blocks = -(-n // state["blocksize"])
    absmax = field(where, arrays, "weight.absmax", ("float32", "uint8"), (blocks,))
    nested = "nested_offset" in state
    if nested != (absmax.dtype == np.uint8):
        raise QuantError(f"{where}: weight.absmax.dtype = {absmax.dtype}, expected uint8 exactly if it is nested")
    if nested:
        outer = field(where, arrays, "weight.nested_absmax", "float32", (-(-blocks // state["nested_blocksize"]),))
        inner_map = field(where, arrays, "weight.nested_quant_map", "float32", (256,))
        absmax = Nested(absmax, outer, inner_map, state["nested_offset"], state["nested_blocksize"])
    codes = streams.unpack(packed, 4, n, "high")
    quant_map = field(where, arrays, "weight.quant_map", "float32", (16,))
    return FourBit(codes, absmax, quant_map, found[0], state["blocksize"], shape, state["dtype"])


def pack(weight: FourBit) -> dict[str, np.ndarray]:
    """Write one 4-bit weight, the JSON byte for byte as bitsandbytes does."""
    state: dict[str, object] = {
        "quant_type": weight.quant_type,
        "blocksize": weight.blocksize,
        "dtype": weight.dtype,
        "shape": list(weight.shape),
    }
    codes = np.append(weight.codes, ZERO[weight.quant_type]) if weight.codes.size % 2 else weight.codes
    arrays = {"weight": streams.pack(codes, 4, "high")[:, None]}
    if isinstance(weight.absmax, Nested):
        nested = weight.absmax
        arrays |= {"weight.absmax": nested.codes, "weight.quant_map": weight.quant_map}
        arrays |= {"weight.nested_absmax": nested.absmax, "weight.nested_quant_map": nested.quant_map}
        state |= {"nested_blocksize": nested.blocksize, "nested_dtype": "float32", "nested_offset": nested.offset}
    else:
        arrays |= {"weight.absmax": weight.absmax, "weight.quant_map": weight.quant_map}
    arrays[STATE + weight.quant_type] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return arrays


def unpack_int8(arrays: Arrays) -> RowInt8:
    """Read one int8 weight. Raises QuantError (missing, dtype), ShapeError, RangeError (another weight_format)."""
    where = "bitsandbytes.unpack_int8"
    weight = field(where, arrays, "weight", "int8", (None, None))
    absmax = field(where, arrays, "SCB", "float32", (len(weight),))
    if "weight_format" in arrays:
        kind = field(where, arrays, "weight_format", ("uint8", "int8", "int64"), None)
        if kind.size != 1 or int(kind.reshape(())) != 0:
            raise RangeError(f"{where}: weight_format = {kind.reshape(-1)[:4].tolist()}, expected 0 (row)")
    return RowInt8(weight, absmax)


def pack_int8(weight: RowInt8) -> dict[str, np.ndarray]:
    """Write one int8 weight."""
    return {"weight": weight.codes, "SCB": weight.absmax, "weight_format": np.array(0, np.uint8)}


def _state(where: str, data: np.ndarray) -> dict:
    """The JSON of quant_state with every entry that is used checked."""
    try:
        state = json.loads(data[:MAX_JSON].tobytes())
    except (ValueError, RecursionError) as error:
        raise QuantError(f"{where}: quant_state is no JSON ({error}), expected an object") from error
    if not isinstance(state, dict):
        raise QuantError(f"{where}: quant_state = {type(state).__name__}, expected an object")
    shape = state.get("shape")
    sizes_fit = isinstance(shape, list) and 0 < len(shape) <= 8 and all(type(n) is int and n > 0 for n in shape)
    if not sizes_fit or math.prod(shape) > LARGEST:
        raise QuantError(
            f"{where}: shape of quant_state = {str(shape)[:80]}, expected lengths with a product up to 2^40"
        )
    for name in ("blocksize", "nested_blocksize"):
        size = state.get(name, 256 if name[0] == "n" else None)
        if type(size) is not int or not 1 <= size <= 1 << 20:
            raise QuantError(f"{where}: {name} of quant_state = {str(size)[:80]}, expected 1 to 2^20")
        state[name] = size
    if "nested_offset" in state and type(state["nested_offset"]) not in (int, float):
        raise QuantError(f"{where}: nested_offset = {str(state['nested_offset'])[:80]}, expected a number")
    return state | {"shape": tuple(shape), "dtype": str(state.get("dtype", "float32"))[:40]}
