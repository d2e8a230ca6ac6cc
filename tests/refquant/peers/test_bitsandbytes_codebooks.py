"""NF4, FP4, the dynamic map and double quantization of bitsandbytes on a CPU, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from peer_inputs import differing, matrix, subnormal_rows

from refquant import codebook, double_quant, dynamic_map, fp4, nf4, quantize
from refquant.groups import TENSOR, block

pytestmark = pytest.mark.filterwarnings("ignore")
N = 64
FORMATS = {"nf4": ("nf4", nf4), "fp4": ("bnb_fp4", fp4)}


def unpacked(packed, shape):
    data = packed.numpy().reshape(-1)
    return np.stack([data >> 4, data & 15], axis=1).reshape(-1)[: np.prod(shape)].reshape(shape)


@pytest.fixture
def functional(peer):
    torch, functional = peer("torch"), peer("bitsandbytes.functional")
    return torch, functional


@pytest.mark.parametrize("name", FORMATS)
def test_4_bit_codes_scales_and_values_equal_ours(functional, name):
    torch, F = functional
    scheme, module = FORMATS[name]
    midpoints = codebook.midpoints(np.sort(module.LEVELS))
    ties = np.zeros((15, N), np.float32)
    ties[:, 0], ties[:, 1] = 1, midpoints
    x = np.concatenate([matrix(N), ties, *[r[None] for r in subnormal_rows(N).values()]])
    packed, state = F.quantize_4bit(torch.tensor(x), blocksize=N, quant_type=name)
    got = quantize(x, f"{scheme}-b{N}@bitsandbytes-cpu")
    np.testing.assert_array_equal(state.absmax.numpy(), got.scale)
    np.testing.assert_array_equal(unpacked(packed, x.shape), got.codes)
    np.testing.assert_array_equal(F.dequantize_4bit(packed, state).numpy(), got.dequantize())


@pytest.mark.parametrize("name", FORMATS)
def test_a_short_last_block_follows_another_rule(functional, name):
    torch, F = functional
    x = np.random.default_rng(1).standard_normal(N + 22).astype(np.float32)
    for tail in (x[N:], np.zeros(22, np.float32)):
        whole = np.concatenate([x[:N], tail])
        packed, state = F.quantize_4bit(torch.tensor(whole), blocksize=N, quant_type=name)
        if name == "nf4":
            rule = replace(nf4.RULE, **nf4.DIALECTS["bitsandbytes-default-tail"])
        else:
            rule = replace(
                fp4.RULE, **(fp4.DIALECTS["bitsandbytes-default"] | {"reciprocal": False, "min_scale": 1e-38})
            )
        codes, scale = codebook.encode(tail, rule, TENSOR)
        assert state.absmax[1].item() == scale
        np.testing.assert_array_equal(unpacked(packed, whole.shape)[N:], codes)


@pytest.mark.parametrize("name", FORMATS)
def test_double_quantization_equals_ours_but_for_the_order_of_a_mean(functional, name):
    torch, F = functional
    scheme, module = FORMATS[name]
    x = np.random.default_rng(2).standard_normal((257, 512)).astype(np.float32)
    packed, state = F.quantize_4bit(torch.tensor(x), blocksize=N, quant_type=name, compress_statistics=True)
    rule = replace(module.RULE, **module.DIALECTS["bitsandbytes-cpu"], double=True)
    codes, scale, stored = double_quant.encode(x, rule, block(N), offset=state.offset.item())
    np.testing.assert_array_equal(stored["scale_codes"], state.absmax.numpy())
    np.testing.assert_array_equal(stored["scale_absmax"], state.state2.absmax.numpy())
    np.testing.assert_array_equal(unpacked(packed, x.shape), codes)
    np.testing.assert_array_equal(
        F.dequantize_4bit(packed, state).numpy(), codebook.decode(codes, scale, rule, block(N))
    )
    ours = quantize(x, f"{scheme}-dq@bitsandbytes-cpu").extras["scale_offset"]
    assert abs(float(ours) - state.offset.item()) <= 4 * np.spacing(ours)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [64, 100, 256])
def test_8_bit_codes_of_the_cpu_library_equal_ours(functional, signed, size):
    torch, F = functional
    map_ = F.create_dynamic_map(signed)
    head = "dynamic8" if signed else "udynamic8"
    x = matrix(size) if signed else np.abs(matrix(size))
    codes, state = F.quantize_blockwise(torch.tensor(x), code=map_, blocksize=size)
    got = quantize(x, f"{head}-b{size}@bitsandbytes-cpu")
    np.testing.assert_array_equal(map_.numpy(), np.array(got.scheme.rule.levels, np.float32))
    np.testing.assert_array_equal(state.absmax.numpy(), got.scale)
    assert differing(size, codes.numpy(), got.codes) == {}
    np.testing.assert_array_equal(F.dequantize_blockwise(codes, state).numpy(), got.dequantize())


def test_other_divisions_of_the_dynamic_map_equal_ours(functional):
    _, F = functional
    for signed, exponent_bits, bits in ((True, 3, 5), (True, 5, 8), (True, 3, 4), (False, 3, 4)):
        ref = np.unique(F.create_dynamic_map(signed, exponent_bits, bits).numpy())  # filled up to 256 with zeros there
        np.testing.assert_array_equal(dynamic_map.levels(signed, exponent_bits, bits), ref)


def test_the_arithmetic_of_the_default_back_end_takes_the_nearest_level(peer):
    torch = peer("torch")  # its operators: the back end itself is not reached where there is a CPU library
    x = matrix(256)
    scaled = torch.tensor(x) * (1.0 / torch.tensor(x).abs().amax(1, keepdim=True).clamp(min=1e-38))
    levels = torch.tensor(dynamic_map.RULE.table)
    codes = torch.bucketize(scaled.clamp(-1, 1), (levels[:-1] + levels[1:]) / 2)
    assert differing(256, codes.numpy(), quantize(x, "dynamic8@bitsandbytes-default").codes) == {}


def test_not_a_number_is_a_code_there_and_an_error_here(functional):
    torch, F = functional
    x = matrix(256)[0].copy()
    x[9] = np.nan
    codes, state = F.quantize_blockwise(torch.tensor(x), blocksize=256)
    assert state.absmax.item() == np.nanmax(np.abs(x))  # NaN does not count
    assert codes[9].item() == 0  # -0.993 absmax, silently
    with pytest.raises(ValueError, match=r"x\.flat\[9\] = nan|array\.flat\[9\] = nan"):
        quantize(x, "dynamic8")
    x[9] = np.inf
    codes, state = F.quantize_blockwise(torch.tensor(x), blocksize=256)
    assert np.isinf(state.absmax.item())
    assert set(np.delete(codes.numpy(), 9).tolist()) == {131}
    with pytest.raises(ValueError, match=r"flat\[9\] = inf"):
        quantize(x, "dynamic8")
