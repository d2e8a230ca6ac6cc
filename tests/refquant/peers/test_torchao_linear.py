"""Linear formats of torchao and torch.ao: scales, zero points and codes bit for bit."""

import numpy as np
import pytest
from peer_inputs import differing, matrix, subnormal_rows

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 128


def torchao_codes(peer, x, mapping, bits, low, high, eps=None):
    torch, primitives = peer("torch"), peer("torchao.quantization.quant_primitives")
    x = torch.tensor(x)
    kind = getattr(primitives.MappingType, mapping)
    dtype = torch.int8 if low < 0 else torch.uint8
    scale, zero = primitives.choose_qparams_affine(x, kind, (1, x.shape[1]), dtype, low, high, eps)
    codes = primitives.quantize_affine(x, (1, x.shape[1]), scale, zero, dtype, low, high)
    return codes.numpy(), scale.numpy()[:, None], zero.numpy()[:, None]


@pytest.mark.parametrize(
    "mapping, scheme, low, high",
    [
        ("SYMMETRIC", "int8", -128, 127),
        ("SYMMETRIC", "int4", -8, 7),
        ("SYMMETRIC_NO_CLIPPING_ERR", "int4-covering", -8, 7),
        ("ASYMMETRIC", "int8-asym", -128, 127),
        ("ASYMMETRIC", "uint4", 0, 15),
        ("ASYMMETRIC", "uint8", 0, 255),
    ],
)
def test_groups_equal_ours(peer, mapping, scheme, low, high):
    codes, scale, zero = torchao_codes(peer, matrix(N), mapping, 4, low, high)
    head, *words = scheme.split("-")
    got = quantize(matrix(N), "-".join([head, f"g{N}", *words]) + "@torchao")
    assert differing(N, scale, got.scale) == {}
    assert differing(N, codes, got.codes) == {}
    if mapping == "ASYMMETRIC":
        assert differing(N, zero, got.zero_point) == {}


def test_a_reciprocal_moves_codes_that_a_division_does_not(peer):
    x = np.random.default_rng(5).standard_normal((512, 128), dtype=np.float32)
    codes, _, _ = torchao_codes(peer, x, "SYMMETRIC", 8, -128, 127)
    np.testing.assert_array_equal(codes, quantize(x, "int8-g128@torchao").codes)
    moved = codes != quantize(x, "int8-g128").codes
    assert 0 < moved.sum() < 100  # quotients within an ulp of a half


def test_a_subnormal_scale_is_raised_to_the_smallest_normal_number(peer):
    x = np.stack(list(subnormal_rows(N).values()))
    codes, scale, _ = torchao_codes(peer, x, "SYMMETRIC", 8, -128, 127)
    got = quantize(x, f"int8-g{N}@torchao")
    np.testing.assert_array_equal(scale, got.scale)
    np.testing.assert_array_equal(codes, got.codes)
    assert (got.scale >= 2.0**-126).all()


def test_tinygemm_stores_the_middle_of_the_range(peer):
    torch, primitives = peer("torch"), peer("torchao.quantization.quant_primitives")
    x = torch.tensor(matrix(N))
    block = (1, N)
    scale, middle = primitives._choose_qparams_affine_tinygemm(
        x, primitives.MappingType.ASYMMETRIC, block, torch.uint8, 0, 15, eps=1e-6
    )
    codes = primitives._quantize_affine_tinygemm(x, block, scale, middle, torch.uint8, 0, 15)
    back = primitives._dequantize_affine_tinygemm(codes, block, scale, middle, torch.uint8, 0, 15)
    got = quantize(matrix(N), f"uint4-g{N}@tinygemm")
    assert differing(N, scale.numpy()[:, None], got.scale) == {}
    assert differing(N, middle.numpy()[:, None], got.zero_point) == {}
    assert differing(N, codes.numpy(), got.codes) == {}
    assert differing(N, back.numpy(), got.dequantize()) == {}


@pytest.mark.parametrize("scheme, dtype, kind", [("int8", "qint8", "symmetric"), ("uint8", "quint8", "affine")])
def test_torch_ao_observer_and_kernel_equal_ours(peer, scheme, dtype, kind):
    torch, ao = peer("torch"), peer("torch.ao.quantization")
    x = torch.tensor(matrix(N))
    observer = ao.PerChannelMinMaxObserver(
        ch_axis=0, dtype=getattr(torch, dtype), qscheme=getattr(torch, f"per_channel_{kind}")
    )
    observer(x)
    scale, zero = observer.calculate_qparams()
    codes = torch.quantize_per_channel(x, scale, zero, 0, getattr(torch, dtype)).int_repr()
    got = quantize(matrix(N), f"{scheme}-channel@torch.ao")
    assert differing(N, scale.numpy()[:, None], got.scale) == {}
    assert differing(N, codes.numpy(), got.codes) == {}
    if kind == "affine":
        assert differing(N, zero.numpy()[:, None], got.zero_point) == {}
