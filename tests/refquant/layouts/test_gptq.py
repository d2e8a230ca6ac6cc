"""GPTQ v1, v2 and planar against one bit at a time, and every reading of a zero point that wrapped."""

import dataclasses

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, SchemeError, ShapeError
from refquant.layouts import gptq


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("version", gptq.VERSIONS)
def test_every_bit_is_where_the_naive_loop_puts_it(linear, same, bits, version):
    ref = linear(bits, outs=32, ins=128, group_size=32)
    got = gptq.pack(ref, version)
    qweight, qzeros = naive.gptq(ref.codes.tolist(), ref.zero_point.tolist(), bits, version)
    np.testing.assert_array_equal(got["qweight"].view(np.uint32), qweight)
    np.testing.assert_array_equal(got["qzeros"].view(np.uint32), qzeros)
    np.testing.assert_array_equal(got["scales"], ref.scale.T.astype(np.float16))
    np.testing.assert_array_equal(got["g_idx"], np.arange(128) // 32)
    assert {a.dtype.name for a in got.values()} == {"int32", "float16"}
    same(gptq.unpack(got, version), ref)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_act_order_survives(linear, same, bits):
    ref = linear(bits, g_idx=True)
    same(gptq.unpack(gptq.pack(ref), "gptq", group_size=64), ref)


def test_a_symmetric_file_has_sevens_in_version_1_and_eights_in_version_2(linear):
    ref = linear(4, zero="middle")
    assert set(gptq.pack(ref, "gptq")["qzeros"].view(np.uint32).ravel().tolist()) == {0x77777777}
    assert set(gptq.pack(ref, "gptq_v2")["qzeros"].view(np.uint32).ravel().tolist()) == {0x88888888}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_word_arithmetic_is_its_own_inverse_and_borrows_from_neighbours(linear, same, bits):
    ref = linear(bits, outs=32)
    got = gptq.pack(ref, carry="word")
    np.testing.assert_array_equal(got["qzeros"].view(np.uint32), naive.gptq_v1_words(ref.zero_point.tolist(), bits))
    assert (got["qzeros"] != gptq.pack(ref, carry="field")["qzeros"]).any()
    same(gptq.unpack(got, carry="word"), ref)
    assert (gptq.unpack(got, carry="field").zero_point != ref.zero_point).any()


def test_a_field_of_ones_is_0_or_16_or_a_carry_by_reader(linear):
    ref = linear(4, outs=8)
    zero = np.full_like(ref.zero_point, 8)
    zero[0] = 0  # output 0 of every word wraps
    arrays = gptq.pack(dataclasses.replace(ref, zero_point=zero))
    read = {carry: gptq.unpack(arrays, carry=carry).zero_point[:2, 0].tolist() for carry in gptq.CARRIES}
    assert read == {"field": [0, 8], "plain": [16, 8], "word": [0, 9]}


def test_without_g_idx_groups_are_neighbours(linear, same):
    ref = linear()
    arrays = gptq.pack(ref)
    del arrays["g_idx"]
    same(gptq.unpack(arrays), ref)


def test_a_short_last_group_is_told_by_g_idx(linear, same):
    ref = linear(4, ins=160, group_size=64)
    arrays = gptq.pack(ref)
    same(gptq.unpack(arrays), ref)
    del arrays["g_idx"]
    with pytest.raises(ShapeError, match="groups = 3 for 160 inputs, expected a divisor: say group_size"):
        gptq.unpack(arrays)
    same(gptq.unpack(arrays, group_size=64), ref)


def test_bfloat16_scales_are_read_and_are_written_where_they_fit(linear, same):
    ref = linear(dtype="bfloat16")
    same(gptq.unpack(gptq.pack(ref, dtype="bfloat16")), ref)
    wide = dataclasses.replace(ref, scale=np.full_like(ref.scale, np.float32(1 + 2**-7) * 2**-30))
    with pytest.raises(RangeError, match=r"scales\[0, 0\] = .*, expected a value that float16 holds exactly"):
        gptq.pack(wide)


def hostile(arrays, **changed):
    return {k: v for k, v in {**arrays, **changed}.items() if v is not None}


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"qzeros": None}, QuantError, "qzeros is missing among g_idx, qweight, scales"),
        ({"qweight": np.zeros((32, 64), np.float32)}, QuantError, "qweight.dtype = float32, expected int32"),
        ({"qweight": np.zeros((33, 63), np.int32)}, ShapeError, r"\(33, 63\), expected \(any, 64\)"),
        ({"qweight": np.zeros((0, 64), np.int32)}, ShapeError, r"\(0, 64\), expected"),
        ({"qweight": np.zeros(64, np.int32)}, ShapeError, "expected"),
        ({"qzeros": np.zeros((4, 64 * 9), np.int32)}, RangeError, "expected 32 \\* words / outputs to be 1 to 8"),
        ({"scales": np.zeros((3, 64), np.float16)}, ShapeError, r"scales.shape = \(3, 64\), expected \(4, any\)"),
        ({"g_idx": np.full(256, 4, np.int32)}, RangeError, "g_idx in 4..4, expected 0..3"),
        ({"g_idx": np.full(256, -1, np.int32)}, RangeError, "g_idx in -1..-1, expected 0..3"),
        ({"g_idx": np.zeros(255, np.int32)}, ShapeError, r"\(255,\), expected \(256,\)"),
    ],
)
def test_hostile_arrays_are_named(linear, change, error, message):
    with pytest.raises(error, match=message):
        gptq.unpack(hostile(gptq.pack(linear()), **change))


def test_what_the_layout_cannot_hold_is_refused(linear):
    with pytest.raises(ShapeError, match="in \\* bits = 132, expected a positive multiple of 32"):
        gptq.pack(linear(ins=33, group_size=33))
    with pytest.raises(RangeError, match=r"offset / scale of group \[0, 0\]"):
        gptq.pack(linear(zero="offset"))
    with pytest.raises(RangeError, match=r"zero_point\[0, 0\] = .*, expected an integer"):
        gptq.pack(linear(zero="float"))
    with pytest.raises(RangeError, match=r"zero_point in 0..15, expected 1..16 for gptq of 4 bits"):
        gptq.pack(linear(), carry="plain")
    with pytest.raises(SchemeError, match="version, carry = 'v3', 'field'"):
        gptq.unpack(gptq.pack(linear()), "v3")
    with pytest.raises(RangeError, match="bits = 3, expected one that packs"):
        gptq.unpack(gptq.pack(linear()), bits=3)
    with pytest.raises(ShapeError, match="groups = 4 for 256 inputs"):
        gptq.unpack(gptq.pack(linear()), group_size=32)
