"""A weight of integer codes as lists of Python numbers: what a file of any layout says of it.

    (q - zero) * scale + offset        in exact fractions; divided by the scale where a layout divides

It is made of the arrays of a test and told as arrays again. Nothing of refquant takes part.
"""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from conformance.protocol import Unsupported


def floats(array):
    """(rows of Python floats, name of the dtype): bfloat16 is uint16 in files."""
    if array.dtype == np.uint16:
        return (array.astype("<u4") << 16).view("<f4").astype(np.float64).tolist(), "bfloat16"
    return array.astype(np.float64).tolist(), array.dtype.name


def stored(values, dtype):
    """The inverse: every number is one of this dtype."""
    array = np.array([[float(v) for v in row] for row in values], np.float32)
    return (array.view("<u4") >> 16).astype(np.uint16) if dtype == "bfloat16" else array.astype(dtype)


def given(inputs, params):
    """The weight of a test that writes."""
    settings = {name: value for name, value in params.items() if name != "options"}
    offset, order = inputs.get("offset"), inputs.get("g_idx")
    return SimpleNamespace(
        codes=inputs["codes"].tolist(),
        scale=inputs["scale"].tolist(),
        zero=inputs["zero_point"].tolist(),
        whole=inputs["zero_point"].dtype.kind == "i",
        bits=settings["bits"],
        size=settings["group_size"],
        dtype=settings.get("dtype", "float16"),
        offset=None if offset is None else offset.tolist(),
        order=None if order is None else order.tolist(),
        divide=settings.get("divide", False),
        shape=settings.get("shape"),
    )


def made(codes, scale, zero, bits, size, dtype, offset=None, order=None, divide=False, shape=None, whole=True):
    """The weight of a file."""
    return SimpleNamespace(**locals())


def told(weight):
    """Every field by its name, in the order of the page."""
    found = {
        "codes": np.array(weight.codes, np.uint8),
        "scale": np.array(weight.scale, np.float32),
        "zero_point": np.array(weight.zero, np.int16 if weight.whole else np.float32),
        "bits": np.int64(weight.bits),
        "group_size": np.int64(weight.size),
        "dtype": np.frombuffer(weight.dtype.encode(), np.uint8),
        "offset": None if weight.offset is None else np.array(weight.offset, np.float32),
        "g_idx": None if weight.order is None else np.array(weight.order, np.int32),
        "divide": np.int64(weight.divide),
        "shape": None if weight.shape is None else np.array(weight.shape, np.int64),
    }
    middle = all(z == 2 ** (weight.bits - 1) for row in weight.zero for z in row)
    middle = middle and weight.whole and weight.offset is None
    return {name: value for name, value in found.items() if value is not None}, np.bool_(middle)


def decoded(weight):
    """Values in float32, an operation at a time."""
    f32, rows = np.float32, []
    for codes, scale, zero, i in zip(weight.codes, weight.scale, weight.zero, range(len(weight.codes))):
        row = []
        for j, q in enumerate(codes):
            group = j // weight.size if weight.order is None else weight.order[j]
            with np.errstate(all="ignore"):
                x = f32(q) - f32(zero[group])
                x = x / f32(scale[group]) if weight.divide else x * f32(scale[group])
                row.append(x if weight.offset is None else x + f32(weight.offset[i][group]))
        rows.append(row)
    values = np.array(rows, np.float32)
    return values if weight.shape is None else values.T.reshape(weight.shape)


def zeros(weight):
    """Integer zero points that give the same numbers: zero - offset / scale."""
    if weight.offset is None:
        return [[whole(Fraction(z)) for z in row] for row in weight.zero]
    rows = []
    for scales, points, offsets in zip(weight.scale, weight.zero, weight.offset):
        row = []
        for s, z, m in zip(scales, points, offsets):
            if s == 0 and m == 0:  # any would do
                row.append(2 ** (weight.bits - 1))
            elif s == 0:
                raise Unsupported("refusals")
            else:
                row.append(whole(Fraction(z) - Fraction(m) / Fraction(s)))
        rows.append(row)
    return rows


def whole(x):
    """A fraction that is an integer."""
    if x.denominator != 1:
        raise Unsupported("refusals")
    return int(x)


def values_of(weight, code):
    """The number that a code means in each group."""
    offsets = weight.offset or [[0.0] * len(row) for row in weight.scale]
    return [
        [(code - Fraction(z)) * Fraction(s) + Fraction(m) for s, z, m in zip(*rows)]
        for rows in zip(weight.scale, weight.zero, offsets)
    ]


def flat(rows):
    """One row of all."""
    return [v for row in rows for v in row]


def groups_of(ins, count, size=None):
    """The size that is said, or the quotient."""
    return size or ins // count


def nibbles(rows, first_high):
    """Two codes of a byte."""
    return [[code for b in row for code in ((b // 16, b % 16) if first_high else (b % 16, b // 16))] for row in rows]
