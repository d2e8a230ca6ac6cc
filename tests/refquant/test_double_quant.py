from dataclasses import replace

import numpy as np
import pytest

from refquant import codebook, double_quant, dynamic_map, groups, nf4, quantize
from refquant.errors import SchemeError, ShapeError

DQ = replace(nf4.RULE, double=True)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(300).standard_normal(
        (300, 64 * 3), dtype=np.float32
    )  # 900 scales: 3 blocks and a tail


def test_scales_are_the_levels_of_the_map_around_their_mean(weights):
    codes, scale, stored = double_quant.encode(weights, DQ, groups.block(64))
    plain, wide = codebook.encode(weights, nf4.RULE, groups.block(64))
    np.testing.assert_array_equal(codes, plain)  # codes come from the float32 scale
    assert float(stored["scale_offset"]) == np.float32(wide.mean(dtype=np.float64))
    assert (stored["scale_codes"].shape, stored["scale_absmax"].shape) == ((900,), (4,))
    for b in range(4):
        part = slice(256 * b, 256 * (b + 1))
        centred = wide[part] - stored["scale_offset"]
        absmax = np.abs(centred).max()
        assert stored["scale_absmax"][b] == absmax
        ref = codebook.nearest(centred / absmax, dynamic_map.RULE.table)
        np.testing.assert_array_equal(stored["scale_codes"][part], ref)
        back = dynamic_map.RULE.table[ref] * absmax + stored["scale_offset"]
        np.testing.assert_array_equal(scale[part], back)


def test_a_tensor_decodes_from_what_is_stored_alone(weights):
    q = quantize(weights, "nf4-dq")
    scale = double_quant.decode_scales(q.extras, dynamic_map.RULE, q.scale.shape)
    np.testing.assert_array_equal(scale, q.scale)
    np.testing.assert_array_equal(codebook.decode(q.codes, scale, nf4.RULE, groups.block(64)), q.dequantize())
    assert q.nbytes == weights.size // 2 + 900 + 4 * 4 + 4


def test_a_large_array_takes_4_127_bits_and_hardly_more_error():
    x = np.random.default_rng(1).standard_normal((1024, 1024), dtype=np.float32)
    dq, plain = quantize(x, "nf4-dq"), quantize(x, "nf4")
    assert dq.bits_per_weight == pytest.approx(dq.scheme.bits_per_weight, abs=1e-3)
    assert dq.scheme.bits_per_weight == pytest.approx(4.127, abs=5e-4)
    error = {q: np.square(q.dequantize() - x).mean() for q in (dq, plain)}
    assert 1 < error[dq] / error[plain] < 1.005


def test_blocks_of_zeros_stay_zero_except_with_the_reciprocal_of_cuda(weights):
    x = weights.copy()
    x[:7] = 0
    assert not quantize(x, "nf4-dq").dequantize()[:7].any()
    assert not quantize(x, "nf4-dq@bitsandbytes-cpu").dequantize()[:7].any()
    cuda = quantize(x, "nf4-dq@bitsandbytes-cuda")
    assert not cuda.codes[:7].any()
    np.testing.assert_array_equal(
        cuda.dequantize()[0], -np.repeat(cuda.scale[:3], 64)
    )  # code 0 is -1: -s^, which is not 0
    assert cuda.dequantize()[:7].any()


def test_the_cpu_library_shifts_a_scale_that_equals_the_mean():
    scale = np.float32([1, 3, 2, 2])
    exact = double_quant.encode_scales(scale, dynamic_map.RULE)
    cpu = double_quant.encode_scales(scale, dynamic_map.dialect("bitsandbytes-cpu"))
    assert (exact["scale_codes"][2], cpu["scale_codes"][2]) == (127, 131)
    assert double_quant.decode_scales(exact, dynamic_map.RULE, (4,))[2] == 2
    assert double_quant.decode_scales(cpu, dynamic_map.RULE, (4,))[2] == pytest.approx(2 + 2.125e-5, abs=1e-6)


def test_an_offset_that_is_given_is_used(weights):
    _, _, stored = double_quant.encode(weights, DQ, groups.block(64), offset=2.5)
    assert float(stored["scale_offset"]) == 2.5


def test_one_block_and_equal_blocks_are_exact():
    x = np.tile(nf4.LEVELS, (2, 4)).astype(np.float32)
    np.testing.assert_array_equal(quantize(x, "nf4-dq").dequantize(), x)


def test_refusals():
    stored = double_quant.encode_scales(np.ones(300, np.float32), dynamic_map.RULE)
    with pytest.raises(ShapeError, match=r"scale_absmax\.size = 1, expected 2 for 300"):
        double_quant.decode_scales(stored | {"scale_absmax": np.ones(1)}, dynamic_map.RULE, (300,))
    with pytest.raises(SchemeError, match="expected a scale_rule"):
        codebook.Rule((0.0, 1.0), double=True)
