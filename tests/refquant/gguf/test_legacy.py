"""The encoders of Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 F16 BF16: the rules behind ggml's bytes, one by one."""

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refquant.gguf import legacy, scalars
from refquant.gguf.formats import FORMATS, dequantize, quantize

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
STEPS = {"Q4_0": 16, "Q4_1": 15, "Q5_0": 32, "Q5_1": 31, "Q8_0": 254}  # steps between the ends of a block's range


def block_of(*weights):
    """32 weights: those given, then zeros."""
    return np.array([*weights, *[0.0] * (32 - len(weights))], np.float32)


def encode_one(name, x):
    """The block of 32 weights as a record."""
    return FORMATS[name].encode(x[None])[0]


@pytest.mark.parametrize("name", [*BLOCKS, "F16", "BF16"])
@settings(max_examples=50, deadline=None)
@given(x=arrays(np.float32, (2, 32), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_encoded_bytes_are_those_of_gguf_py(name, x):
    x = np.where(x == 0, np.float32(0), x)  # gguf-py goes its own way on -0.0
    with np.errstate(all="ignore"):
        ref = gguf.quantize(x, gguf.GGMLQuantizationType[name]).view(np.uint8)
    np.testing.assert_array_equal(quantize(x, name), ref)


@pytest.mark.parametrize("name", BLOCKS)
@settings(max_examples=50, deadline=None)
@given(x=arrays(np.float32, (2, 32), elements=st.floats(-1000, 1000, width=32)))
def test_a_weight_comes_back_within_half_a_step_or_a_full_one_at_the_clipped_end(name, x):
    again = dequantize(quantize(x, name), name)
    reach = 2 * np.abs(x).max(axis=-1) if name.endswith("_0") else np.ptp(x, axis=-1)
    step = reach / STEPS[name]
    allowed = step if name in ("Q4_0", "Q5_0") else step / 2  # +a beside -a is clipped by one step
    narrowed = np.abs(x).max(axis=-1) * 2.0**-10 + 32 * 2.0**-24  # d and m as float16, subnormal ones included
    assert (np.abs(again - x).max(axis=-1) <= allowed * 1.001 + narrowed + 256 * 2.0**-25).all()


def test_a_block_of_zeros():
    assert encode_one("Q4_0", block_of()).tobytes().hex() == "0080" + "88" * 16  # d = 0 / -8 = -0.0
    assert encode_one("Q5_0", block_of()).tobytes().hex() == "0080" + "ff" * 4 + "00" * 16
    assert encode_one("Q4_1", block_of()).tobytes() == bytes(20)
    assert encode_one("Q5_1", block_of()).tobytes() == bytes(24)
    assert encode_one("Q8_0", block_of()).tobytes() == bytes(34)


def test_the_first_of_two_equal_peaks_sets_the_sign_of_the_scale():
    b = encode_one("Q4_0", block_of(1, -1))
    assert b["d"] == -0.125
    assert b["qs"][:2].tolist() == [0x80, 0x8F]  # +1 is code 0, -1 would be 16 and is clipped to 15
    assert encode_one("Q4_0", block_of(-1, 1))["d"] == 0.125


def test_the_nibbles_hold_weight_j_and_weight_j_plus_16():
    x = np.arange(-16, 16, dtype=np.float32)
    assert encode_one("Q5_0", x)["qs"].tolist() == [17 * i for i in range(16)]
    assert encode_one("Q5_0", x)["qh"].view("<u4")[0] == 0xFFFF0000
    np.testing.assert_array_equal(legacy.decode_q5_0(encode_one("Q5_0", x)), x)


def test_q4_0_rounds_ties_up_and_q8_0_away_from_zero():
    q4 = encode_one("Q4_0", block_of(-8, 0.5, -0.5, 1.5, -1.5))  # d = 1
    assert (q4["qs"][:5] & 15).tolist() == [0, 9, 8, 10, 7]
    q8 = encode_one("Q8_0", block_of(127, 0.5, -0.5, 1.5, -1.5))  # d = 1
    assert q8["qs"][:5].tolist() == [127, 1, -1, 2, -2]


def test_codes_use_the_scale_before_it_is_narrowed():
    x = block_of(-8.001, 4.5)  # d = 1.000125 is stored as 1: 4.5 / 1 would tie upwards
    assert encode_one("Q4_0", x)["d"] == 1
    assert encode_one("Q4_0", x)["qs"][1] & 15 == 12


@pytest.mark.parametrize("name, peak", [("Q4_0", -8 * 65520.0), ("Q5_0", -16 * 65520.0), ("Q8_0", 127 * 65520.0)])
def test_a_scale_of_65520_or_more_is_stored_as_infinity(name, peak):
    assert np.isposinf(encode_one(name, block_of(peak))["d"])
    assert encode_one(name, block_of(np.nextafter(np.float32(peak), np.float32(0))))["d"] == 65504
    again = dequantize(quantize(block_of(peak, 1), name), name)
    assert np.isinf(again[0]) and np.isnan(again[1])  # inf * 0


@pytest.mark.parametrize("name, peak", [("Q4_0", -8 * 2.0**-25), ("Q5_0", -16 * 2.0**-25), ("Q8_0", 127 * 2.0**-25)])
def test_a_scale_of_2_to_the_minus_25_or_less_is_stored_as_zero(name, peak):
    b = encode_one(name, block_of(peak))
    assert b["d"] == 0
    assert b["qs"][0] == 127 if name == "Q8_0" else b["qs"][0] & 15 == 0  # the extreme code all the same
    np.testing.assert_array_equal(dequantize(quantize(block_of(peak), name), name), 0)
    assert encode_one(name, block_of(np.float32(peak) * np.float32(1.001)))["d"] == np.float16(2.0**-24)


def test_q8_1_adds_the_sum_of_the_codes_times_the_scale_before_it_is_narrowed():
    b = encode_one("Q8_1", block_of(127.06, 3, -8))  # d = 1.0004724
    assert b["d"] == 1
    assert b["qs"][:3].tolist() == [127, 3, -8]
    assert b["s"] == np.float16(122 * 1.0004724) == 122.0625
    assert encode_one("Q8_1", block_of()).tobytes() == bytes(36)


def test_an_overflowing_reciprocal_gives_code_0():
    assert (encode_one("Q4_0", block_of(1e-44))["qs"] == 0).all()  # and not 8
    assert (encode_one("Q8_0", block_of(1e-44))["qs"] == 0).all()


def test_a_range_past_float32_stores_an_infinite_scale_and_code_0():
    b = encode_one("Q4_1", block_of(3e38, -3e38))
    assert np.isposinf(b["d"]) and np.isneginf(b["m"])
    assert b["qs"][0] == 0


def test_the_sign_of_a_zero_minimum_is_that_of_the_first_zero():
    assert encode_one("Q4_1", block_of(-0.0, 1))["m"].tobytes() == b"\x00\x80"
    assert encode_one("Q5_1", np.roll(block_of(-0.0, 1), 1))["m"].tobytes() == b"\x00\x00"


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_finite_half_survives_a_round_trip(name):
    every = np.arange(1 << 16, dtype=np.uint16).view(FORMATS[name].layout)
    wide = dequantize(every, name)
    finite = np.isfinite(wide)
    assert finite.sum() == (1 << 16) - (2 << 10 if name == "F16" else 2 << 7)
    np.testing.assert_array_equal(quantize(wide[finite], name).view(np.uint16), every[finite].view(np.uint16))


def test_bf16_rounds_half_to_even_overflows_to_infinity_and_keeps_nan_quiet():
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7F8000, 0x7F800001, 0xFFC12345], np.uint32)
    got = scalars.encode_bf16(bits.view(np.float32)[:, None])
    assert [hex(v) for v in got] == ["0x3f80", "0x3f82", "0x3f81", "0x7f80", "0x7fc0", "0xffc1"]


def test_f16_rounds_half_to_even_and_overflows_from_65520():
    x = np.array([2049, 2051, 65519.996, 65520, 2.0**-25, 3 * 2.0**-25], np.float32)
    assert quantize(x, "F16").view(np.float16).tolist() == [2048, 2052, 65504, np.inf, 0, 2.0**-23]
