from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import rows, seeded

from refquant import codebook, fp4
from refquant.errors import ShapeError
from refquant.groups import TENSOR, group

CUDA, TRITON, DEFAULT = (
    replace(fp4.RULE, **fp4.DIALECTS[f"bitsandbytes-{name}"]) for name in ("cuda", "triton", "default")
)
UNIT = np.float32([1.0])  # the largest magnitude of a group of 2: the other weight is the quotient itself


def code_of(x: float, rule: codebook.Rule) -> int:
    codes, _ = codebook.encode(np.array([1, x], np.float32), rule, TENSOR)
    return int(codes[1])


def test_levels_are_a_sign_and_twelfths_in_the_order_of_the_bits():
    assert fp4.LEVELS.tolist() == [np.float32(v / 12) * s for s in (1, -1) for v in (0, 1 / 16, 8, 12, 4, 6, 2, 3)]
    assert np.array_equal(np.sort(fp4.LEVELS), fp4.LEVELS[list(fp4.ASCENDING)])


@seeded
@given(row=rows(12))
def test_codes_name_the_nearest_magnitude_with_the_sign_of_x(row):
    codes, scale = fp4.encode(row, block=12)
    quotient = row / (scale if scale[0] else np.float32(1))
    gap = np.abs(np.abs(quotient)[:, None].astype(np.float64) - np.abs(fp4.LEVELS[:8]).astype(np.float64))
    best = gap.min(axis=1)
    assert (gap[np.arange(12), codes & 7] <= best + 6e-8).all()  # bounds are float32 midpoints
    assert ((codes >= 8) == (quotient < 0)).all()


def test_a_tie_takes_the_smaller_magnitude_on_both_sides():
    for bound, low, high in zip(fp4.MIDPOINTS, fp4.ASCENDING[8:], fp4.ASCENDING[9:], strict=False):
        above = np.nextafter(bound, np.float32(2))
        assert (code_of(bound, fp4.RULE), code_of(above, fp4.RULE)) == (low, high)
        assert (code_of(-bound, fp4.RULE), code_of(-above, fp4.RULE)) == (low + 8, high + 8)


def test_zeros_take_code_0_and_small_negatives_the_other_zero():
    assert [code_of(x, fp4.RULE) for x in (0.0, -0.0, 1e-3, -1e-3, -1e-45)] == [0, 0, 0, 8, 8]
    for rule, code in ((fp4.RULE, 0), (CUDA, 0), (TRITON, 3), (DEFAULT, 0)):
        codes, scale = codebook.encode(np.zeros(8, np.float32), rule, TENSOR)
        assert float(scale) == 0
        assert (codes == code).all()
        assert not codebook.decode(codes, scale, rule, TENSOR).any()


def test_the_sorted_back_end_parts_the_zeros_the_other_way_round():
    assert [code_of(x, DEFAULT) for x in (0.0, -0.0, 1e-3, -1e-3)] == [0, 0, 8, 0]
    low = float(fp4.MIDPOINTS[2])
    assert code_of(-low, DEFAULT) != code_of(-low, fp4.RULE)  # its ties go to the lower value


@pytest.mark.parametrize("at, ulps", [(0, 14), (1, 0), (2, -1), (3, -1), (4, 0), (5, -6), (6, -1)])
def test_decimal_literals_are_other_float32_than_the_midpoints(at, ulps):
    literal, midpoint = fp4.LITERALS[at], fp4.MIDPOINTS[at]
    assert int(literal.view(np.int32)) - int(midpoint.view(np.int32)) == ulps
    between = {np.nextafter(min(literal, midpoint), np.float32(1)), max(literal, midpoint)} if ulps else set()
    for x in between:
        assert code_of(x, CUDA) != code_of(x, DEFAULT)
        assert code_of(x, CUDA) == code_of(x, TRITON)
    assert code_of(np.float32(0.5), CUDA) == code_of(np.float32(0.5), DEFAULT) == 5


@pytest.mark.parametrize("rule", [fp4.RULE, CUDA, DEFAULT])
@seeded
@given(codes=st.lists(st.integers(0, 15), min_size=15, max_size=15))
def test_every_value_survives_a_round_trip(rule, codes):
    codes = np.array([3, *codes], np.uint8)  # 3 is 1.0
    values = codebook.decode(codes, UNIT, rule, group(16))
    again, _ = codebook.encode(values, rule, group(16))
    np.testing.assert_array_equal(codebook.decode(again, UNIT, rule, group(16)), values)


def test_refusals_name_the_length():
    with pytest.raises(ShapeError, match="60, expected a positive multiple of 64"):
        fp4.encode(np.zeros(60, np.float32))
