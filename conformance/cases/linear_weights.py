"""Small weights of integer codes, of every kind that a checkpoint holds or cannot hold.

Names that begin with `no-` are of weights that no layout, or hardly one, has a place for.
"""

import numpy as np

from refquant.layouts import Linear
from refquant.layouts.linear import middle


def weights() -> dict[str, Linear]:
    """Small weights of every kind."""
    made: dict[str, Linear] = {}
    for bits in (4, 8, 2, 3, 1, 5, 6, 7):
        made[f"plain-{bits}"] = weight(bits)
    for zero in ("offset", "float", "middle"):
        made[f"{zero}-4"] = weight(4, zero)
    made["offset-8"] = weight(8, "offset")
    made["row-8"] = weight(8, "middle", size=32)
    made["row-4"] = weight(4, "middle", size=32)
    made["bfloat16"] = weight(4, dtype="bfloat16")
    made["float32"] = weight(4, dtype="float32")
    made["order"] = weight(4, order=True)
    made["order-middle"] = weight(4, "middle", order=True)
    made["divided"] = weight(4, "offset", divide=True)
    made["divided-middle"] = weight(4, "middle", divide=True)
    for bits in (4, 5):
        made[f"row-offset-{bits}"] = weight(bits, "offset", size=32)
    made["group-past-row"] = weight(4, "middle", size=48)
    made["divided-8"] = changed(weight(8, "offset", divide=True), offset=np.ones((8, 2), np.float32))
    made["row-5"] = weight(5, "middle", size=32)
    both = weight(4, "offset", size=32)
    made["offset-and-zero"] = changed(both, zero_point=both.zero_point + np.int16(3))
    both = weight(4, "offset")
    made["small-offset-and-zero"] = changed(both, zero_point=both.zero_point + np.int16(3))
    still, nothing = weight(4, "offset", size=32), np.zeros((8, 1), np.float32)
    made["scales-of-0"] = changed(still, scale=nothing, offset=nothing)
    made["no-scale-but-an-offset"] = changed(still, scale=nothing)
    made["no-whole-groups"] = weight(4, size=24)
    made["short-row"] = weight(4, "middle", ins=28, size=28)
    made["ones"] = weight(4, ins=8, size=1)
    made["no-place-for-this-scale"] = changed(weight(4), scale=np.full((8, 2), 0.1, np.float32))
    made["no-place-for-a-large-scale"] = changed(weight(4), scale=np.full((8, 2), 1e30, np.float32))
    made["no-divided-zero"] = weight(4, divide=True)
    made["no-divided-offset-and-middle"] = changed(weight(4, "middle", divide=True), offset=np.ones((8, 2), np.float32))
    made["no-divided-odd-columns"] = weight(4, "middle", ins=33, size=33, divide=True)
    for zero in (-1, 256):
        points = weight(8).zero_point.copy()
        points[3, 1] = zero
        made[f"no-zero-{zero}-of-8-bits"] = changed(weight(8), zero_point=points)
    for zero in (-1, 16, 127, 128, -127, -128, 129, -129, 2**14 + 1):
        made[f"no-zero-{zero}"] = changed(weight(4), zero_point=np.full((8, 2), zero, np.int16))
    half = weight(4, "float")
    made["no-half-zero"] = changed(half, zero_point=np.full((8, 2), 7.5, np.float32))
    made["no-third-offset"] = changed(weight(4, "offset"), offset=np.full((8, 2), 1 / 3, np.float32))
    made["wide-32"] = weight(4, ins=128, size=32)
    made["wide-64"] = weight(4, ins=128, size=64)
    made["wide-128"] = weight(4, ins=256, size=128)
    made["no-such-many-rows"] = changed(
        weight(4), codes=weight(4).codes[:7], scale=weight(4).scale[:7], zero_point=weight(4).zero_point[:7]
    )
    made["no-such-many-columns"] = weight(4, ins=20, size=20)
    made["no-odd-columns"] = weight(4, "middle", ins=33, size=33)
    made["across-all"] = changed(weight(4, "middle", size=32), shape=(32, 8))
    made["no-way-across"] = changed(weight(4, size=16), shape=(32, 8))
    return made


def weight(
    bits: int,
    zero: str = "int",
    ins: int = 32,
    size: int = 16,
    dtype: str = "float16",
    order: bool = False,
    divide: bool = False,
) -> Linear:
    """Codes, scales and zero points; `zero` is int, float, offset or middle."""
    outs = {2: 16, 3: 32}.get(bits, 8)  # whole words of zero points in GPTQ
    rng = np.random.default_rng([bits, ins, size])
    groups = -(-ins // size)
    scale = (rng.integers(1, 64, (outs, groups)) / 4096).astype(np.float32)
    points, offset = middle(bits, scale.shape), None
    if zero == "int":
        points = rng.integers(0, 1 << bits, scale.shape).astype(np.int16)
        points[0, 0], points[1, 0] = 0, (1 << bits) - 1
    elif zero == "float":
        points = rng.integers(0, 1 << bits, scale.shape).astype(np.float32)
    elif zero == "offset":
        points = np.zeros(scale.shape, np.int16)
        offset = -(rng.integers(0, 1 << bits, scale.shape) * scale).astype(np.float32) + np.float32(0)
    codes = rng.integers(0, 1 << bits, (outs, ins), dtype=np.uint8)
    g_idx = rng.permutation(np.arange(ins, dtype=np.int32) // size) if order else None
    return Linear(codes, scale, points, bits, size, dtype, offset, g_idx, divide)


def changed(linear: Linear, **fields_: object) -> Linear:
    """The same weight with other fields."""
    fields = {name: getattr(linear, name) for name in Linear.__slots__}
    return Linear(**fields | fields_)
