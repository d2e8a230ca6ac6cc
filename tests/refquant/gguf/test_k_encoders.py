"""The encoders of the K-quants: narrowing, the last rounding, packing, and blocks without anything to find."""

import numpy as np
import pytest

from refquant.gguf import k_packing, k_quants
from refquant.gguf.formats import FORMATS, dequantize, quantize

WITH_MINIMUM = ["Q2_K", "Q4_K", "Q5_K"]
SIGNED = ["Q3_K", "Q6_K"]
ALL = sorted([*WITH_MINIMUM, *SIGNED])
LAST = {"Q2_K": 15, "Q4_K": 63, "Q5_K": 63}


def rows(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def encode(name, x, importance=None):
    fmt = FORMATS[name]
    return fmt.encode(x) if importance is None else fmt.encode_weighted(x, importance)


def scales(b, name):
    """sc and m of Q2_K, Q4_K, Q5_K."""
    if name == "Q2_K":
        return b["scales"] & 15, b["scales"] >> 4
    return k_quants.eight_scales(b["scales"])


@pytest.mark.parametrize("name", ALL)
def test_a_block_of_zeros_is_zero_bytes(name):
    assert encode(name, np.zeros((1, 256), np.float32)).tobytes() == bytes(FORMATS[name].block_bytes)


@pytest.mark.parametrize("name", WITH_MINIMUM)
def test_the_largest_scale_and_minimum_of_a_block_get_the_last_integer(name):
    sc, m = scales(encode(name, rows(100, 256)), name)
    assert (sc.max(axis=-1) == LAST[name]).all()
    assert (m.max(axis=-1) == LAST[name]).all()


def test_the_extreme_scale_of_q6_k_is_minus_128_and_that_of_q3_k_minus_32():
    assert (encode("Q6_K", rows(100, 256))["scales"].min(axis=-1) == -128).all()
    b = encode("Q3_K", rows(100, 256))
    again = k_packing.pack_sixteen_scales(sixteen_scales(b["scales"]))
    np.testing.assert_array_equal(again, b["scales"])
    assert (sixteen_scales(b["scales"]).min(axis=-1) == 0).all()


def sixteen_scales(packed):
    """The drawing of `k_quants`, letter by letter: A..P lie in the low halves, then the high ones, of bytes 0..7."""
    bits = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    tops = [(packed[..., 8 + j % 4] >> (2 * (j // 4))) & 3 for j in range(16)]
    return bits | np.stack(tops, axis=-1) << 4


def test_packing_eight_scales_is_undone_by_the_decoder():
    sc, m = np.random.default_rng(3).integers(0, 64, (2, 500, 8), dtype=np.uint8)
    got = k_quants.eight_scales(k_packing.pack_eight_scales(sc, m))
    np.testing.assert_array_equal(got, [sc, m])


@pytest.mark.parametrize("name", ALL)
def test_what_is_decoded_once_decodes_to_about_the_same_again(name):
    x = dequantize(quantize(rows(20, 256), name), name)
    again = dequantize(quantize(x, name), name)
    assert np.sqrt(np.mean((again - x) ** 2)) < 0.1 * np.std(x)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_code_is_the_nearest_under_the_scales_that_are_stored(name, weighted):
    x = rows(200, 256)
    b = encode(name, x, np.random.default_rng(4).random((1, 256), dtype=np.float32) if weighted else None)
    again = FORMATS[name].decode(b).astype(np.float64)
    step = {"Q2_K": 16, "Q3_K": 16, "Q4_K": 32, "Q5_K": 32, "Q6_K": 16}[name]
    groups, decoded = x.reshape(-1, step), again.reshape(-1, step)
    inside = (groups > decoded.min(axis=1, keepdims=True)) & (groups < decoded.max(axis=1, keepdims=True))
    gaps = np.diff(np.sort(decoded, axis=1), axis=1)
    unit = np.where(gaps > 1e-9, gaps, np.inf).min(axis=1, keepdims=True)  # at least one step of the codes
    assert (np.abs(groups - decoded) <= 0.5 * unit * 1.001)[inside & np.isfinite(unit)].all()


@pytest.mark.parametrize("name", WITH_MINIMUM)
def test_weights_that_are_zero_or_one_positive_number_have_no_minimum(name):
    x = np.abs(rows(10, 1)) * (rows(10, 256) > 0)
    b = encode(name, x)
    assert b["dmin"].tobytes() == bytes(20)
    assert (scales(b, name)[1] == 0).all()
    np.testing.assert_allclose(FORMATS[name].decode(b), x, rtol=2e-3)


@pytest.mark.parametrize("name", WITH_MINIMUM)
def test_negative_constants_are_all_minimum(name):
    x = np.full((1, 256), -1.5, np.float32)
    b = encode(name, x)
    assert b["d"] == 0
    np.testing.assert_allclose(FORMATS[name].decode(b), x, rtol=2e-3)


@pytest.mark.parametrize("name", ALL)
def test_a_scale_past_float16_is_stored_as_infinity(name):
    b = encode(name, rows(4, 256) * np.float32(1e10))
    assert np.isinf(b["d"]).all()


@pytest.mark.parametrize("name", ALL)
def test_a_scale_that_narrows_to_zero_keeps_the_codes_of_the_search(name):
    x = rows(4, 256)
    tiny = encode(name, x * np.float32(2.0**-40))
    assert (tiny["d"] == 0).all()
    assert (tiny["ql" if name == "Q6_K" else "qs"] != 0).any()
    np.testing.assert_array_equal(FORMATS[name].decode(tiny), 0)


def test_q6_k_clears_blocks_whose_scales_are_all_below_1e_15():
    x = rows(1, 256) * np.float32(1e-14)
    assert encode("Q6_K", x)["ql"].any() == (np.abs(x).max() / 32 >= 1e-15)
    assert encode("Q6_K", x * np.float32(1e-3)).tobytes() == bytes(210)


def test_q8_k_scales_the_extreme_to_minus_127_in_float32():
    x = rows(50, 256)
    b = encode("Q8_K", x)
    first = np.abs(x).argmax(axis=-1)
    assert (b["qs"][np.arange(50), first] == -127).all()
    np.testing.assert_array_equal(b["bsums"], b["qs"].reshape(50, 16, 16).sum(axis=-1, dtype=int))
    extreme = x[np.arange(50), first]
    np.testing.assert_array_equal(b["d"], np.float32(1) / (np.float32(-127) / extreme))
    assert encode("Q8_K", np.zeros((1, 256), np.float32)).tobytes() == bytes(292)


def test_q8_k_rounds_half_to_even_and_keeps_both_ends():
    x = np.zeros((1, 256), np.float32)
    x[0, :6] = [-127, 127, 0.5, 1.5, -0.5, 2.5]  # d = 1
    assert encode("Q8_K", x)["qs"][0, :6].tolist() == [-127, 127, 0, 2, 0, 2]


@pytest.mark.parametrize("name", ALL)
def test_the_importance_of_a_group_that_has_none_is_not_held_against_the_others(name):
    x, v = rows(40, 256), np.ones((1, 256), np.float32)
    v[0, :32] = 0
    error = (FORMATS[name].decode(encode(name, x, v)) - x)[:, 32:] ** 2
    plain = (FORMATS[name].decode(encode(name, x)) - x)[:, 32:] ** 2
    assert error.mean() < 1.02 * plain.mean()
