from dataclasses import replace
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
from refquant.groups import TENSOR, group


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
    by_reciprocal, _ = codebook.encode(blocks[peak], rule, group(64))
    step = np.abs(by_division.astype(int) - by_reciprocal)
    assert step.max() == 1
    assert 0 < (step > 0).mean() < 0.2


LITERALS = [  # of kernels.cu
    "-0.8480964004993439",
    "-0.6106329262256622",
    "-0.4599952697753906",
    "-0.33967943489551544",
    "-0.23460740596055984",
    "-0.13791173323988914",
    "-0.045525018125772476",
    "0.03979014977812767",
    "0.1202552504837513",
    "0.2035212516784668",
    "0.2920137718319893",
    "0.3893125355243683",
    "0.5016634166240692",
    "0.6427869200706482",
    "0.8614784181118011",
]


def test_the_bounds_of_the_cuda_kernel_are_its_decimal_literals_rounded_once():
    assert nf4.CUDA_BOUNDS.tolist() == [float(naive.to_float(Fraction(literal))) for literal in LITERALS]
    twice = np.array([float(literal) for literal in LITERALS], np.float32)  # decimal to float64 to float32
    np.testing.assert_array_equal(twice, codebook.midpoints(nf4.LEVELS))
    assert np.flatnonzero(twice != nf4.CUDA_BOUNDS).tolist() == [0, 8, 12, 14]


def by(dialect, x):
    return codebook.encode(x, replace(nf4.RULE, **nf4.DIALECTS[dialect]), TENSOR)


@pytest.mark.parametrize(
    "dialect, code, scale",
    [
        ("bitsandbytes-cuda", 0, 0),
        ("bitsandbytes-triton", 15, 0),
        ("bitsandbytes-default", 7, 0),
        ("bitsandbytes-cpu", 7, 0),
        ("bitsandbytes-default-tail", 7, 1e-38),
    ],
)
def test_a_block_of_zeros_has_a_byte_of_each_back_end_and_decodes_to_zeros(dialect, code, scale):
    for zeros in (np.zeros(64, np.float32), np.full(64, -0.0, np.float32)):
        codes, got = by(dialect, zeros)
        assert (codes == code).all()
        assert got == np.float32(scale)
        assert not codebook.decode(codes, got, nf4.RULE, TENSOR).any()


def test_dividing_and_multiplying_by_the_reciprocal_part_next_to_midpoints():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2048, 64), dtype=np.float32)
    x[:, :15] = codebook.midpoints(nf4.LEVELS) * np.abs(x).max(axis=1, keepdims=True)
    rules = {d: replace(nf4.RULE, **nf4.DIALECTS[d]) for d in nf4.DIALECTS}
    codes = {d: codebook.encode(x, rule, group(64))[0] for d, rule in rules.items()}
    assert (codes["bitsandbytes-cuda"] != codes["bitsandbytes-default"])[:, 15:].mean() < 1e-4
    moved = codes["bitsandbytes-cuda"] != codes["bitsandbytes-triton"]
    assert 0.01 < moved[:, :15].mean() < 0.6
    assert moved[:, 15:].mean() < 1e-4
    assert (np.abs(codes["bitsandbytes-cuda"].astype(int) - codes["bitsandbytes-triton"])[moved] == 1).all()


def test_a_divisor_that_is_held_at_1e_38_makes_small_blocks_smaller():
    x = np.float32([1e-39, -1e-39, 5e-40, 0])
    assert by("bitsandbytes-default", x)[0].tolist() == [8, 6, 8, 7]  # x / 1e-38 = .1, -.1, .05, 0
    assert by("bitsandbytes-triton", x)[0].tolist() == [15, 0, 12, 7]


def test_the_cuda_kernel_takes_subnormal_weights_for_zeros():
    codes, scale = by("bitsandbytes-cuda", np.float32([1e-39, -1e-39, 5e-40, 0]))
    assert (codes.tolist(), float(scale)) == ([0, 0, 0, 0], 0)
    codes, scale = by("bitsandbytes-cuda", np.float32([1e-37, 1.1e-38, -1.1e-38, 2e-38]))
    assert (codes.tolist(), float(scale)) == ([15, 7, 7, 9], np.float32(1e-37))


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
