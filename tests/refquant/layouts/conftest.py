"""Made-up weights for the tests of layouts: codes, scales that float16 holds, zero points."""

from collections.abc import Callable

import numpy as np
import pytest

from refquant.layouts.linear import Linear, middle


@pytest.fixture(scope="session")
def linear() -> Callable[..., Linear]:
    """`linear(bits, outs, ins, group_size, zero="int" | "middle" | "float" | "offset")`; the same each time."""

    def make(
        bits: int = 4,
        outs: int = 64,
        ins: int = 256,
        group_size: int = 64,
        zero: str = "int",
        dtype: str = "float16",
        g_idx: bool = False,
        divide: bool = False,
    ) -> Linear:
        rng = np.random.default_rng([bits, outs, ins, group_size])
        groups = -(-ins // group_size)
        exact = rng.integers(1, 256, (outs, groups)).astype(np.float32) / 4096  # 8 bits: every dtype holds it
        exact[0, 0] = 0
        points = middle(bits, exact.shape)
        if zero == "int":
            points = rng.integers(0, 1 << bits, exact.shape).astype(np.int16)
            points[:2, 0] = 0, (1 << bits) - 1
        if zero == "float":
            points = (rng.integers(0, 8 << bits, exact.shape) / 8).astype(np.float32)
        offset = None
        if zero == "offset":
            points = np.zeros_like(points)
            offset = (-rng.integers(0, 256, exact.shape) / 512).astype(np.float32) + np.float32(0)
        order = rng.permutation(np.arange(ins, dtype=np.int32) // group_size) if g_idx else None
        codes = rng.integers(0, 1 << bits, (outs, ins), dtype=np.uint8)
        return Linear(codes, exact, points, bits, group_size, dtype, offset, order, divide)

    return make


@pytest.fixture(scope="session")
def same() -> Callable[[Linear, Linear], None]:
    """Fails unless two records hold the same numbers in the same form."""

    def check(got: Linear, ref: Linear) -> None:
        assert (got.bits, got.group_size, got.dtype, got.divide, got.shape) == (
            ref.bits,
            ref.group_size,
            ref.dtype,
            ref.divide,
            ref.shape,
        )
        for name in ("codes", "scale", "zero_point", "offset", "g_idx"):
            a, b = getattr(got, name), getattr(ref, name)
            assert (a is None) == (b is None), name
            if b is not None:
                assert a.dtype == b.dtype, name
                np.testing.assert_array_equal(a, b, err_msg=name)

    return check
