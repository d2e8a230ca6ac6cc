from fractions import Fraction
from statistics import NormalDist

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import rows, seeded

from refquant import codebook, nf4
from refquant.errors import NonFiniteError, ShapeError


def test_levels_are_the_normal_quantiles_of_the_paper():
    tail = (31 / 32 + 29 / 30) / 2  # middle of the outermost probability bin
    quantile = np.vectorize(NormalDist().inv_cdf)
    up, down = np.linspace(tail, 0.5, 9)[:-1], np.linspace(tail, 0.5, 8)[:-1]
    derived = np.sort(np.r_[quantile(up), 0, -quantile(down)])
    np.testing.assert_allclose(nf4.LEVELS, derived / derived[-1], rtol=0, atol=5e-7)


def test_levels_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        nf4.LEVELS[0] = 2


@seeded
@given(row=rows(12))
def test_codes_equal_the_nearest_level_in_exact_arithmetic(row):
    codes, scale = nf4.encode(row, block=12)
    levels, midpoints = nf4.LEVELS.tolist(), set(codebook.midpoints(nf4.LEVELS).tolist())
    ref, ref_scale = naive.codebook([float(v) for v in row], levels)
    assert Fraction(float(scale[0])) == ref_scale
    for value, code, exact in zip(row, codes.tolist(), ref):
        quotient = float(value / scale[0]) if scale[0] else 0.0
        assert code == exact or quotient in midpoints  # a float32 midpoint is the tie by definition, exactly or not


@seeded
@given(codes=arrays(np.uint8, 64, elements=st.integers(0, 15)))
def test_every_code_survives_a_round_trip(codes):
    codes[0] = 15  # one full-scale weight, so that the block's scale is 1 again
    again, _ = nf4.encode(nf4.decode(codes, np.ones(1, np.float32)))
    np.testing.assert_array_equal(again, codes)


def test_shapes_and_zero_blocks():
    x = np.zeros((3, 2, 128), np.float32)
    codes, scale = nf4.encode(x)
    assert (codes.shape, scale.shape) == (x.shape, (3, 2, 2))
    assert (codes == 7).all()
    assert not nf4.decode(codes, scale).any()


def test_a_reciprocal_moves_a_few_codes_by_one_level():
    x = np.random.default_rng([2048, 1024]).standard_normal((2048, 1024), dtype=np.float32)
    midpoints = codebook.midpoints(nf4.LEVELS)
    x[:, 1:16] = midpoints * x[:, :1]  # quotients next to midpoints, where an ulp decides
    x[:, 16:64] = 0
    blocks = x[:, :64]
    peak = np.abs(blocks).max(axis=1) == np.abs(blocks[:, 0])
    by_division, _ = nf4.encode(blocks[peak])
    rule = codebook.Rule(nf4.RULE.levels, **nf4.DIALECTS["bitsandbytes-cuda"])
    by_reciprocal, _ = codebook.encode(blocks[peak], rule, nf4.group(64))
    step = np.abs(by_division.astype(int) - by_reciprocal)
    assert step.max() == 1
    assert 0 < (step > 0).mean() < 0.2


@pytest.mark.parametrize(
    "x, error, message",
    [
        (np.zeros(60, np.float32), ShapeError, "60, expected a positive multiple of 64"),
        (np.full(64, np.nan, np.float32), NonFiniteError, r"x.flat\[0\] = nan"),
    ],
)
def test_refusals(x, error, message):
    with pytest.raises(error, match=message):
        nf4.encode(x)
