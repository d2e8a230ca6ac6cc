"""The customs of other people's code, each written out here once more, plainly, and compared bit for bit."""

import numpy as np
import pytest
from peer_inputs import differing, matrix

from refquant import affine, quantize
from refquant.linear_dialects import dialects

N = 128
F = np.float32


def groups_of(x):
    return x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)


def gptq(x, symmetric):
    """find_params and quantize of IST-DASLab/gptq quant.py at 4 bits: codes 0..15."""
    lo, hi = groups_of(x)
    lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    if symmetric:
        hi = np.maximum(np.abs(lo), hi)
        lo = np.where(lo < 0, -hi, lo)
    flat = (lo == 0) & (hi == 0)
    lo, hi = np.where(flat, F(-1), lo), np.where(flat, F(1), hi)
    scale = (hi - lo) / F(15)
    zero = np.full_like(scale, 8) if symmetric else np.rint(-lo / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 15), scale, zero


def awq(x, symmetric):
    """pseudo_quantize_tensor of AutoAWQ at 4 bits."""
    lo, hi = groups_of(x)
    if symmetric:
        scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), F(1e-5)) / F(7)
        return np.clip(np.rint(x / scale), -8, 7), scale, np.zeros_like(scale)
    scale = np.maximum(hi - lo, F(1e-5)) / F(15)
    zero = np.clip(-np.rint(lo / scale), 0, 15)
    return np.clip(np.rint(x / scale) + zero, 0, 15), scale, zero


def onnx(x, symmetric):
    """DynamicQuantizeLinear of onnxruntime, at 4 bits, unsigned."""
    lo, hi = groups_of(x)
    lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    scale = np.where(hi == lo, F(1), (hi - lo) / F(15))
    zero = np.rint(np.clip(0 - lo / scale, 0, 15))
    return np.clip(np.rint(x / scale) + zero, 0, 15), scale, zero


@pytest.mark.parametrize(
    "scheme, custom, symmetric, shift",
    [
        ("int4@gptq", gptq, True, 8),
        ("uint4-sym@gptq", gptq, True, 0),
        ("uint4@gptq", gptq, False, 0),
        ("int4@awq", awq, True, 0),
        ("uint4@awq", awq, False, 0),
        ("uint4@onnxruntime", onnx, False, 0),
    ],
)
def test_codes_scales_and_zero_points_equal_the_plain_spelling(scheme, custom, symmetric, shift):
    codes, scale, zero = custom(matrix(N), symmetric)
    head, _, dialect = scheme.partition("@")
    got = quantize(matrix(N), f"{head}-g{N}@{dialect}")
    assert differing(N, scale, got.scale) == {}
    assert differing(N, codes, got.codes.astype(int) + shift) == {}
    if not symmetric:
        assert differing(N, zero, got.zero_point) == {}


def test_the_scale_of_a_symmetric_group_has_four_conventions():
    x = np.float32([[3, -1, 2, 0.5]])
    ref = {"int4": 3 / 7.5, "int4@awq": 3 / 7, "int4-full": 3 / 8, "int4-signedmax": 3 / -8, "int4@gptq": 6 / 15}
    for name, scale in ref.items():
        head, at, dialect = name.partition("@")
        assert float(quantize(x, f"{head}-token{at}{dialect}").scale[0, 0]) == pytest.approx(scale, rel=1e-6)


def test_the_scale_of_a_group_of_zeros_has_eight_conventions():
    ref = {
        "int4": 0,
        "int4@gptq": 2 / 15,
        "int4@awq": 1e-5 / 7,
        "int4@compressed-tensors": 2.0**-23,
        "int4@torchao": 2.0**-126,
        "int4@torch.ao": 2.0**-23,
        "uint4@hqq": 1.0,
        "uint4@onnx": 1 / 15,
        "uint4@onnxruntime": 1.0,
        "uint4@quanto": 0,
        "uint4@tinygemm": 1e-6,
    }
    for name, scale in ref.items():
        q = quantize(np.zeros((1, 64), np.float32), name)
        assert float(q.scale) == F(scale), name
        assert not q.dequantize().any(), name


def test_gptq_clips_the_upper_half_of_a_symmetric_group_without_a_negative_weight():
    x = np.abs(np.random.default_rng(28).standard_normal((64, 128), dtype=np.float32))
    x += F(1e-3)  # no zero, no negative
    theirs, ours = quantize(x, "int4-g128@gptq"), quantize(x, "int4-g128")
    top = theirs.dequantize().max(axis=1) / x.max(axis=1)
    np.testing.assert_allclose(top, 7 / 15, rtol=1e-6)
    relative = {q: np.square(q.dequantize() - x).sum() / np.square(x).sum() for q in (theirs, ours)}
    assert relative[theirs] > 5 * relative[ours]
    with_one_negative = x.copy()
    with_one_negative[:, 7] = -1e-3
    np.testing.assert_array_equal(
        quantize(with_one_negative, "int4-g128@gptq").codes, quantize(with_one_negative, "int4-g128").codes
    )


def test_adding_the_zero_point_before_or_after_rounding_moves_ties_only():
    """onnx and gptq take round(x / s) + z; compressed-tensors: round(x / s + z), as quanto: round((x - lo) / s)."""
    x = (np.arange(-16, 16) / 2).astype(np.float32)[None] + F(0.5)  # scale 1, zero point odd
    x[0, :2] = -7, 8
    after, before = (quantize(x, f"uint4-token-{word}") for word in ("zafter", "zbefore"))
    assert (float(after.scale[0, 0]), int(after.zero_point[0, 0])) == (1, 7)
    moved = after.codes != before.codes
    ties = x % 1 == 0.5
    assert moved.any()
    assert not moved[~ties].any()
    assert (np.abs(after.codes.astype(int) - before.codes)[moved] == 1).all()


def test_clipping_before_or_after_rounding_is_the_same_for_whole_bounds():
    v = np.random.default_rng(25).uniform(-12, 12, 100_000).astype(np.float32)
    v = np.r_[v, np.arange(-24, 24) / F(2), F([-np.inf, np.inf])]
    np.testing.assert_array_equal(np.clip(np.rint(v), -8, 7), np.rint(np.clip(v, -8, 7)))
    nan = np.rint(np.clip(F(np.nan), -8, 7))
    assert np.isnan(nan)  # neither order makes a code of NaN: what a cast to int8 makes of it is up to the processor


def test_a_float_zero_point_added_after_rounding_is_no_whole_number():
    x = np.random.default_rng(24).uniform(-1, 2, (4, 64)).astype(np.float32)
    before, after = (quantize(x, f"uint4-g64-zfloat-{word}") for word in ("zbefore", "zafter"))
    error = {q: np.abs(q.dequantize() - x).max() / q.scale.max() for q in (before, after)}
    assert error[before] <= 0.5001
    assert error[after] > 0.9  # the fraction of the zero point is cut off each code


def test_computing_codes_before_the_scale_is_narrowed_changes_some():
    x = np.random.default_rng(26).standard_normal((2048, 512), dtype=np.float32)
    # half: -amax is the tie -7.5, which any change of the scale decides: that alone is 1 weight of 2 groups of 128
    for words, share in (("restricted-f16", 0.00029), ("restricted-bf16", 0.0027), ("f16", 0.0023), ("bf16", 0.0049)):
        stored, wide = (quantize(x, f"int4-g128-{words}-{word}") for word in ("stored", "wide"))
        np.testing.assert_array_equal(stored.scale, wide.scale)
        assert (stored.codes != wide.codes).mean() == pytest.approx(share, rel=0.25)


def test_a_multiplier_made_by_a_reciprocal_is_not_the_quotient():
    reach = np.random.default_rng(8).uniform(0.5, 2, 10_000).astype(np.float32)
    assert 0 < ((F(1) / reach) * F(127) != F(127) / reach).mean() < 0.5


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_dialect_makes_a_rule_that_decodes_near_the_input(bits, signed):
    x = np.random.default_rng([bits, signed]).standard_normal((4, 64), dtype=np.float32)
    for name in dialects(bits, signed):
        q = quantize(x, f"{'int' if signed else 'uint'}{bits}-g64@{name}")
        assert np.isfinite(q.dequantize()).all()
        if bits > 1:
            assert np.abs(q.dequantize() - x).max() <= 1.01 * np.abs(q.scale).max()


@pytest.mark.parametrize("name", ["min", "mid"])
def test_zero_points_in_units_of_x_reach_both_ends(name):
    x = np.random.default_rng(3).uniform(5, 9, (16, 64)).astype(np.float32)
    rule = affine.Rule(4, False, False, zero_kind=name, include_zero=False)
    codes, scale, zero = affine.encode(x, rule, affine.groups.group(64))
    got = affine.decode(codes, scale, zero, affine.groups.group(64), rule)
    assert (codes.min(axis=1) == 0).all()
    assert (codes.max(axis=1) == 15).all()
    assert np.abs(got - x).max() <= 0.5001 * scale.max()
