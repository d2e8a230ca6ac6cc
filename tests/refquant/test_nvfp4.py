from fractions import Fraction

import naive_floats
import numpy as np
import pytest
from hypothesis import given
from strategies import rows, seeded

from refquant import gguf, minifloat, nvfp4, quantize
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.minifloat import FORMATS


def byte(scale):
    return minifloat.encode(scale, FORMATS["e4m3fn"])


@seeded
@given(first=rows(16), second=rows(16))
def test_codes_and_scales_equal_exact_arithmetic(first, second):
    x = np.stack([first, second])
    q = quantize(x, "nvfp4")
    codes, scales, tensor = naive_floats.nvfp4([[float(v) for v in row] for row in x])
    assert Fraction(float(q.extras["tensor_scale"])) == tensor
    assert [Fraction(float(s)) for s in q.scale[:, 0]] == scales
    np.testing.assert_array_equal(q.codes & 7, codes)
    np.testing.assert_array_equal(q.codes >> 3, np.signbit(x))


def test_the_largest_block_has_the_largest_scale_and_the_largest_weight_comes_back():
    x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    for dialect in ("", "@transformer-engine", "@compressed-tensors", "@modelopt", "@torchao", "@auto-round"):
        q = quantize(x, "nvfp4" + dialect)
        assert byte(q.scale).max() == 0x7E
        at = np.unravel_index(np.abs(x).argmax(), x.shape)
        assert q.dequantize()[at] == pytest.approx(x[at], rel=1e-6)


def test_item_10_scale_byte_of_a_zero_block_in_each_dialect():
    x = np.zeros((2, 16), np.float32)
    x[1] = 2688.0  # so that the scale of the tensor is 1
    ref = {
        "": 0x00, "@transformer-engine": 0x00, "@auto-round": 0x00, "@compressed-tensors": 0x20, "@modelopt": 0x38,
        "@torchao": 0x08, "@torchao-local": 0x08, "@ggml": 0x00,
    }  # fmt: skip
    got = {dialect: int(byte(quantize(x, "nvfp4" + dialect).scale)[0, 0]) for dialect in ref}
    assert got == ref
    x[1] = 6.0
    assert byte(quantize(x, "nvfp4@modelopt-static").scale)[:, 0].tolist() == [0x7E, 0x7E]
    assert not any(quantize(x, "nvfp4" + dialect).dequantize()[0].any() for dialect in ref)


@pytest.mark.parametrize(
    "dialect, smallest", [("", 2.0**-9), ("@modelopt", 2.0**-9), ("@torchao", 2.0**-6), ("@auto-round", 2.0**-9)]
)
def test_item_11_the_smallest_scale_that_a_block_can_have(dialect, smallest):
    x = np.full((2, 16), 2688.0, np.float32)
    x[0] = 6 * 2.0**-9
    assert quantize(x, "nvfp4" + dialect).scale[0, 0] == smallest
    x[0] = 6 * 2.0**-12
    lost = quantize(x, "nvfp4" + dialect).scale[0, 0]
    assert lost == (0 if dialect in ("", "@auto-round") else smallest)
    assert quantize(x, "nvfp4@compressed-tensors").scale[0, 0] == 0.125


def test_item_12_the_order_of_the_arithmetic_decides_ties():
    rng = np.random.default_rng(12)
    x = rng.uniform(1, 2, (4096, 16)).astype(np.float32)
    q = quantize(x, "nvfp4")
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], np.float32)
    x[:, 0] = x.max(axis=1)  # so that the scales stay, and all others are ties of them, as far as float32 has these
    x[:, 1:] = rng.choice(middles, (4096, 15)) * (q.scale * q.extras["tensor_scale"])
    x[:, 1:] = np.minimum(x[:, 1:], x[:, :1])
    base = quantize(x, "nvfp4")
    for dialect in ("compressed-tensors", "modelopt", "torchao"):
        other = quantize(x, f"nvfp4@{dialect}")
        same = (other.scale == base.scale) & (other.scale > 0)
        moved = (np.abs((other.codes & 7).astype(int) - (base.codes & 7)) > 0)[same[:, 0]]
        assert moved.mean() > 0.01
    ordinary = rng.standard_normal((4096, 16), dtype=np.float32)
    assert (quantize(ordinary, "nvfp4").codes != quantize(ordinary, "nvfp4@modelopt").codes).mean() < 1e-3


def test_reading_one_convention_as_the_other_is_wrong_by_the_square():
    x = np.random.default_rng(1).standard_normal((4, 32), dtype=np.float32)
    multiplier = float(quantize(x, "nvfp4@modelopt").extras["tensor_scale"])
    divisor = float(quantize(x, "nvfp4@compressed-tensors").extras["global_scale"])
    assert multiplier * divisor == pytest.approx(1, rel=1e-6)
    assert quantize(x, "nvfp4@torchao-local").extras == {}


def test_a_zero_tensor_and_a_tiny_one_are_finite_in_every_dialect():
    for dialect in ("", *(f"@{name}" for name in nvfp4.DIALECTS)):
        q = quantize(np.zeros((1, 16), np.float32), "nvfp4" + dialect)
        assert all(v == 1 for v in q.extras.values())
        assert not q.dequantize().any()
        tiny = np.full((1, 16), 1e-41, np.float32)
        assert np.isfinite(quantize(tiny, "nvfp4" + dialect).dequantize()).all()
    assert np.isfinite(quantize(np.full((1, 16), 3e38, np.float32), "nvfp4").dequantize()).all()


def test_lost_blocks_have_zero_codes_or_the_saturated_ones_of_transformer_engine():
    x = np.full((2, 16), 2688.0, np.float32)
    x[0] = 1e-4
    x[0, :3] = -1e-4, 0.0, -0.0
    assert quantize(x, "nvfp4").codes[0, :4].tolist() == [8, 0, 8, 0]
    assert quantize(x, "nvfp4@transformer-engine").codes[0, :4].tolist() == [15, 0, 0, 7]
    assert not quantize(x, "nvfp4@transformer-engine").dequantize()[0].any()


def test_static_activations_take_the_scale_of_the_tensor_as_given():
    x = np.random.default_rng(2).standard_normal((8, 32), dtype=np.float32)
    dynamic = quantize(x, "nvfp4@modelopt")
    static = quantize(x, "nvfp4@modelopt", scale=dynamic.extras["tensor_scale"])
    np.testing.assert_array_equal(static.codes, dynamic.codes)
    clipped = quantize(x, "nvfp4@compressed-tensors", scale=2688.0)  # as if the largest magnitude were 1
    assert clipped.extras["global_scale"] == 2688.0
    assert np.abs(clipped.dequantize()).max() == 1.0


def test_ggml_dialect_has_the_codes_and_scales_of_its_blocks():
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.standard_normal((500, 64)), rng.integers(-12, 13, (500, 64)) / 4])
    x = (x * 2.0 ** rng.integers(-12, 10, (1000, 1))).astype(np.float32)
    x[:4] = 0
    blocks = gguf.quantize(x, "NVFP4").reshape(1000, 36)
    q = quantize(x, "nvfp4@ggml")
    ue4m3 = np.where(byte(q.scale) == 0, 0, byte(q.scale))
    np.testing.assert_array_equal(ue4m3, blocks[:, :4])
    packed = blocks[:, 4:].reshape(1000, 4, 8)
    np.testing.assert_array_equal(q.codes.reshape(1000, 4, 16), np.concatenate([packed & 15, packed >> 4], axis=-1))
    np.testing.assert_array_equal(q.dequantize(), gguf.dequantize(gguf.quantize(x, "NVFP4"), "NVFP4"))


def test_stochastic_rounding_is_right_on_average():
    x = np.full((4096, 16), 1.3, np.float32)
    x[:, 0] = 6
    got = quantize(x, "nvfp4-stochastic", rng=np.random.default_rng(1)).dequantize()
    assert got[:, 1:].mean() == pytest.approx(1.3, rel=2e-3)


def test_tiles_of_sixteen_by_sixteen_are_possible():
    x = np.random.default_rng(2).standard_normal((32, 64), dtype=np.float32)
    q = quantize(x, "nvfp4-b16x16")
    assert q.scale.shape == (2, 4)
    assert np.abs(q.dequantize() - x).max() < 0.6


def test_bits_per_weight_and_bytes():
    q = quantize(np.ones((4, 64), np.float32), "nvfp4")
    assert q.scheme.bits_per_weight == 4.5
    assert q.nbytes == 4 * 64 * 4.5 / 8 + 4  # and the float32 of the tensor


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nvfp4.Rule(block="a"), SchemeError, "block = 'a', expected one of"),
        (lambda: quantize(np.ones((2, 40)), "nvfp4"), ShapeError, "40, expected a positive multiple of 16"),
        (lambda: quantize(np.ones((1, 16)), "nvfp4-stochastic"), SchemeError, "rng = None"),
        (lambda: quantize(np.ones((1, 16)), "nvfp4", scale=0.0), RangeError, "one positive finite number"),
        (lambda: quantize(np.ones((1, 16)), "nvfp4", scale=np.ones(2)), RangeError, "one positive finite number"),
        (lambda: quantize(np.ones((1, 16)), "nvfp4@ggml", scale=1.0), SchemeError, "this dialect has no scale"),
        (lambda: quantize(np.full((1, 16), np.nan), "nvfp4"), NonFiniteError, "nan, expected finite"),
        (
            lambda: nvfp4.decode(np.full(16, 16, np.uint8), np.ones(1), {"tensor_scale": np.float32(1)}),
            RangeError,
            "codes = 16",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
