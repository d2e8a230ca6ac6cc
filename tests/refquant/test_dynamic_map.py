from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from strategies import TINY

from refquant import codebook, dynamic_map
from refquant.errors import RangeError
from refquant.groups import TENSOR, group

SIGNED = dynamic_map.RULE.table
CPU = dynamic_map.dialect("bitsandbytes-cpu")


def exact_levels(signed: bool) -> list[Fraction]:
    """The definition in fractions: middles of 2^i equal parts of 0.1 .. 1, i = 0 .. 6, times 10^(i-6)."""
    found = [Fraction(0), Fraction(1)]
    for i in range(7):
        parts = 2 ** (i if signed else i + 1)
        for j in range(parts):
            middle = Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * j + 1, 2 * parts)
            found += [s * middle / 10 ** (6 - i) for s in ((1, -1) if signed else (1,))]
    return sorted(found)


@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_the_definition_within_a_few_ulp(signed):
    levels = dynamic_map.levels(signed)
    ref = np.array([float(v) for v in exact_levels(signed)])
    assert levels.dtype == np.float32
    assert levels.shape == (256,)
    np.testing.assert_allclose(levels, ref, rtol=4e-7, atol=0)
    assert (np.diff(levels) > 0).all()


def test_landmarks():
    assert float(SIGNED[127]) == 0
    assert (float(SIGNED[0]), float(SIGNED[-1])) == (np.float32(-0.99296874), 1)
    unsigned = dynamic_map.UNSIGNED.table
    assert (float(unsigned[0]), float(unsigned[-1])) == (0, 1)


@pytest.mark.parametrize(
    "signed, exponent_bits, bits",
    [(True, 3, 4), (True, 2, 4), (True, 3, 5), (True, 5, 8), (False, 3, 4), (False, 4, 5), (False, 1, 2)],
)
def test_other_divisions_of_the_bits_fill_the_codes(signed, exponent_bits, bits):
    levels = dynamic_map.levels(signed, exponent_bits, bits)
    assert len(levels) == 2**bits
    assert (np.diff(levels) > 0).all()


@pytest.mark.parametrize("signed, exponent_bits, bits", [(False, 5, 8), (True, 8, 8), (True, 0, 8), (True, 3, 9)])
def test_divisions_that_do_not_fill_the_codes_are_refused(signed, exponent_bits, bits):
    with pytest.raises(RangeError, match=f"bits, exponent_bits = {bits}, {exponent_bits}"):
        dynamic_map.levels(signed, exponent_bits, bits)


def point_code(v: np.ndarray) -> np.ndarray:
    """The code of v as the CPU library finds it: the nearest of 65536 points, then the level nearest to the point."""
    points = np.float32(-1) + np.float32(2) * np.arange(65536).astype(np.float32) / np.float32(65535)
    i = ((np.clip(v, -1, 1) + np.float32(1)) * np.float32(0.5) * np.float32(65535) + np.float32(0.5)).astype(int)
    return np.searchsorted(codebook.midpoints(SIGNED), points[i], side="left")


def test_bounds_of_the_cpu_library_equal_its_table_of_points():
    v = np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32)
    bounds = CPU.thresholds
    v = np.concatenate(
        [v, bounds, np.nextafter(bounds, np.float32(2)), np.float32([0, -0.0, 1, -1, 1e-6, -1e-6, TINY])]
    )
    np.testing.assert_array_equal(codebook.count_below(v, bounds), point_code(v))


def test_the_cpu_library_never_decodes_zero_and_uses_249_codes():
    codes = codebook.count_below(np.float32([0, -0.0, 1e-6, -1e-6]), CPU.thresholds)
    assert codes.tolist() == [131, 131, 131, 123]
    assert SIGNED[131] == pytest.approx(2.125e-5, rel=1e-3)
    used = np.unique(codebook.count_below(np.linspace(-1, 1, 1 << 20, dtype=np.float32), CPU.thresholds))
    assert len(used) == 249
    assert codebook.nearest(np.float32([0]), SIGNED).tolist() == [127]


def test_the_cpu_library_moves_codes_near_zero():
    x = np.random.default_rng(1).standard_normal((4096, 256), dtype=np.float32)
    nearest, scale = codebook.encode(x, replace(CPU, bounds=None), group(256))
    cpu, same = codebook.encode(x, CPU, group(256))
    np.testing.assert_array_equal(scale, same)
    moved = nearest != cpu
    assert moved.mean() == pytest.approx(0.00147, rel=0.2)
    assert np.abs(nearest.astype(int) - cpu).max() in (3, 4)


@pytest.mark.parametrize(
    "name, code", [("bitsandbytes-cpu", 0), ("bitsandbytes-cuda", 0), ("bitsandbytes-default", 127)]
)
def test_a_block_of_zeros_decodes_to_zeros_under_every_code(name, code):
    rule = dynamic_map.dialect(name)
    codes, scale = codebook.encode(np.zeros(16, np.float32), rule, TENSOR)
    assert (codes == code).all()
    assert not codebook.decode(codes, scale, rule, TENSOR).any()
