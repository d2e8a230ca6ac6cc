"""GPTQ checkpoints: qweight, qzeros, scales, g_idx, as AutoGPTQ began them and gptqmodel, vLLM and ExLlama read them.

    x^[o, i] = (q[i, o] - z[g, o]) * scales[g, o],  g = g_idx[i]

    qweight   int32   (in * bits / 32, out)      codes packed downward, along the inputs: words.py, dense
    qzeros    int32   (groups, out * bits / 32)  zero points packed along the outputs
    scales    float16 (groups, out)              bfloat16 and float32 are read too
    g_idx     int32   (in,)                      the group of each input; i // group_size unless act-order

    4 bits: column o of qweight, word r        HHHHGGGG FFFFEEEE DDDDCCCC BBBBAAAA      A = q[8r, o], H = q[8r + 7, o]

version   gptq      qzeros holds z - 1 (a symmetric 4-bit file: 0x77777777)
          gptq_v2   qzeros holds z     (a symmetric 4-bit file: 0x88888888)
          gptq_p    z as in gptq_v2, and codes and zeros of 3, 5, 6 and 7 bits lie in planes: words.py, planar

z - 1 of z = 0 does not fit a field, and what a reader makes of it is the `carry`:

    field   z = (field + 1) mod 2^bits: every zero point from 0 to 2^bits - 1 comes back; AutoGPTQ's CUDA kernels
    plain   z = field + 1, so 2^bits for a field of ones: ExLlama, Marlin; z = 0 cannot be written
    word    0x11111111 (4 bits) is added to whole words: gptqmodel. A field of ones becomes 0 and adds 1 to its left
            neighbour. Subtracting it from words is the exact inverse: what `word` wrote, `word` must read.

They differ where a field is all ones, that is in asymmetric files. 3 bits and fewer than 32 columns a word have no
`word` form: gptqmodel converts those field by field.
Source    gptqmodel 7.7 nn_modules/qlinear (pack_block), utils/model.py (convert_gptq_v1_to_v2_format_module).
"""

import numpy as np

from refquant.errors import RangeError, SchemeError, require_multiple
from refquant.layouts import words
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, group_size_of, integers

VERSIONS = ("gptq", "gptq_v2", "gptq_p")
CARRIES = ("field", "plain", "word")
ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}  # a 1 in every field of a word


def unpack(
    arrays: Arrays, version: str = "gptq", bits: int | None = None, group_size: int | None = None, carry: str = "field"
) -> Linear:
    """Read one weight. `bits` and `group_size` follow from the shapes and are checked if given.

    Raises QuantError (a missing array, a wrong dtype), ShapeError, RangeError (g_idx beyond the groups).
    """
    where = "gptq.unpack"
    _check(version, carry)
    qzeros = field(where, arrays, "qzeros", "int32", (None, None))
    groups, width = qzeros.shape
    scales = field(where, arrays, "scales", FLOATS, (groups, None))
    outs = scales.shape[1]
    bits = bits or _bits_of(where, width, outs)
    if bits not in range(1, 9) or words.count(outs, bits) != width:
        raise RangeError(f"{where}: bits = {bits}, expected one that packs {outs} outputs into {width} words of qzeros")
    qweight = field(where, arrays, "qweight", "int32", (None, outs))
    require_multiple(where, "32 * qweight.shape[0]", 32 * len(qweight), bits)
    ins = 32 * len(qweight) // bits
    g_idx = field(where, arrays, "g_idx", ("int32", "int64"), (ins,)).astype(np.int32) if "g_idx" in arrays else None
    if g_idx is not None and (g_idx.min() < 0 or g_idx.max() >= groups):
        raise RangeError(f"{where}: g_idx in {g_idx.min()}..{g_idx.max()}, expected 0..{groups - 1}")
    if g_idx is not None and group_size is None and (np.diff(g_idx) >= 0).all():
        group_size = int((g_idx == g_idx[0]).sum())  # the last group may be shorter
    size = group_size_of(where, ins, groups, group_size)
    if g_idx is not None and (g_idx == np.arange(ins) // size).all():
        g_idx = None
    read = words.unpack_planar if version == "gptq_p" else words.unpack
    zero = _zeros(qzeros, bits, outs, version, carry)
    scale, dtype = floats(scales)
    return Linear(
        codes=np.ascontiguousarray(read(np.ascontiguousarray(qweight.T), bits, ins)),
        scale=np.ascontiguousarray(scale.T),
        zero_point=np.ascontiguousarray(zero.T),
        bits=bits,
        group_size=size,
        dtype=dtype,
        g_idx=g_idx,
    )


def pack(linear: Linear, version: str = "gptq", carry: str = "field", dtype: str = "float16") -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError where the layout cannot hold these numbers, ShapeError (odd lengths)."""
    where = "gptq.pack"
    _check(version, carry)
    if linear.shape is not None:
        raise RangeError(f"{where}: groups run across the outputs, expected groups along the inputs")
    outs, ins = linear.codes.shape
    for name, n in (("in", ins), ("out", outs)):
        require_multiple(where, f"{name} * bits", n * linear.bits, 32)
    zero = integers(where, linear)
    allowed = (1, 1 << linear.bits) if (version, carry) == ("gptq", "plain") else (0, (1 << linear.bits) - 1)
    if zero.min() < allowed[0] or zero.max() > allowed[1]:
        got = f"zero_point in {zero.min()}..{zero.max()}"
        raise RangeError(f"{where}: {got}, expected {allowed[0]}..{allowed[1]} for {version} of {linear.bits} bits")
    write = words.pack_planar if version == "gptq_p" else words.pack
    g_idx = np.arange(ins) // linear.group_size if linear.g_idx is None else linear.g_idx
    return {
        "qweight": np.ascontiguousarray(write(linear.codes, linear.bits).T),
        "qzeros": _packed_zeros(zero.T, linear.bits, version, carry),
        "scales": stored(where, "scales", linear.scale.T, dtype),
        "g_idx": g_idx.astype(np.int32),
    }


def _zeros(qzeros: np.ndarray, bits: int, outs: int, version: str, carry: str) -> np.ndarray:
    """(groups, out) int16."""
    if version == "gptq_p":
        return words.unpack_planar(qzeros, bits, outs).astype(np.int16)
    if version == "gptq" and carry == "word" and bits in ONES:
        qzeros = (qzeros.view(np.uint32) + np.uint32(ONES[bits])).view(np.int32)
        version = "gptq_v2"
    zero = words.unpack(qzeros, bits, outs).astype(np.int16)
    if version == "gptq":
        zero += 1
        if carry != "plain":
            zero &= (1 << bits) - 1
    return zero


def _packed_zeros(zero: np.ndarray, bits: int, version: str, carry: str) -> np.ndarray:
    """(groups, out) to (groups, out * bits / 32) int32."""
    if version == "gptq_p":
        return words.pack_planar(zero.astype(np.uint8), bits)
    if version == "gptq" and carry == "word" and bits in ONES:
        packed = words.pack(zero.astype(np.uint8), bits)
        return (packed.view(np.uint32) - np.uint32(ONES[bits])).view(np.int32)
    below = 1 if version == "gptq" else 0
    return words.pack(((zero - below) & ((1 << bits) - 1)).astype(np.uint8), bits)


def _bits_of(where: str, width: int, outs: int) -> int:
    """Bits of a field: outputs fill whole words, or, in files that pad, exactly one number of bits fits."""
    bits, rest = divmod(32 * width, outs)
    if rest == 0 and bits in range(1, 9):
        return bits
    fitting = [b for b in range(1, 9) if words.count(outs, b) == width]
    if len(fitting) != 1:
        wanted = f"32 * words / outputs to be 1 to 8, got {32 * width / outs:.3g}"
        raise RangeError(f"{where}: qzeros has {width} words for {outs} outputs, expected {wanted}")
    return fitting[0]


def _check(version: str, carry: str) -> None:
    if version not in VERSIONS or carry not in CARRIES:
        wanted = f"one of {', '.join(VERSIONS)} and one of {', '.join(CARRIES)}"
        raise SchemeError(f"gptq: version, carry = {version!r}, {carry!r}, expected {wanted}")
