"""compressed-tensors' integer formats against one bit at a time."""

import dataclasses

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts import compressed_tensors as ct


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("aligned", [False, True])
def test_pack_quantized_has_every_bit_where_the_naive_loop_puts_it(linear, same, bits, aligned):
    ref = linear(bits, outs=20, ins=96, group_size=32)
    got = ct.pack_packed(ref, aligned=aligned)
    pack = naive.aligned if aligned else naive.stream
    np.testing.assert_array_equal(got["weight_packed"].view(np.uint32), pack(ref.codes.tolist(), bits))
    zeros = naive.transposed(pack(ref.zero_point.T.tolist(), bits))
    np.testing.assert_array_equal(got["weight_zero_point"].view(np.uint32), zeros)
    assert got["weight_shape"].tolist() == [20, 96]
    same(ct.unpack_packed(got, bits=bits), ref)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("ins", [33, 100, 256])
def test_symmetric_weights_store_no_zero_points_and_any_length(linear, same, bits, ins):
    ref = linear(bits, outs=5, ins=ins, group_size=ins, zero="middle", dtype="bfloat16")
    got = ct.pack_packed(ref)
    assert sorted(got) == ["weight_packed", "weight_scale", "weight_shape"]
    assert got["weight_scale"].dtype == np.uint16
    same(ct.unpack_packed(got), ref)


def test_the_width_tells_dense_from_aligned_except_for_seven_bits(linear, same):
    for bits in (3, 5, 6):
        ref = linear(bits, ins=256)
        same(ct.unpack_packed(ct.pack_packed(ref, aligned=True)), ref)
    seven = linear(7, ins=256)
    arrays = ct.pack_packed(seven, aligned=True)
    same(ct.unpack_packed(arrays, bits=7), seven)
    assert arrays["weight_packed"].shape == ct.pack_packed(linear(8, ins=256))["weight_packed"].shape


def test_act_order_survives(linear, same):
    ref = linear(g_idx=True)
    got = ct.pack_packed(ref)
    assert got["weight_g_idx"].dtype == np.int32
    same(ct.unpack_packed(got), ref)


@pytest.mark.parametrize("zero", ["int", "middle"])
def test_int_quantized_stores_signed_bytes(linear, same, zero):
    ref = linear(8, zero=zero)
    got = ct.pack_int(ref)
    np.testing.assert_array_equal(got["weight"].astype(int), ref.codes.astype(int) - 128)
    if zero == "int":
        np.testing.assert_array_equal(got["weight_zero_point"].astype(int), ref.zero_point.astype(int) - 128)
    same(ct.unpack_int(got), ref)


def test_one_scale_may_serve_the_whole_tensor():
    weight = np.array([[-128, 127], [0, 5]], np.int8)
    for shape in ((), (1,), (1, 1)):
        arrays = {"weight": weight, "weight_scale": np.full(shape, 0.5, np.float32)}
        arrays["weight_zero_point"] = np.full(shape, -3, np.int8)
        np.testing.assert_array_equal(ct.unpack_int(arrays).dequantize(), (weight.astype(np.float32) + 3) * 0.5)


def test_four_bit_codes_in_bytes_are_read_with_their_bits(linear, same):
    ref = linear(4)
    same(ct.unpack_int(ct.pack_int(ref), bits=4), ref)
    with pytest.raises(RangeError, match="expected codes of bits = 3"):
        ct.unpack_int(ct.pack_int(ref), bits=3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"weight_shape": np.array([2**40, 2**40])}, ShapeError, r"\(64, 32\), expected \(1099511627776, any"),
        ({"weight_shape": np.array([-64, 256])}, ShapeError, "expected lengths of at least 1"),
        ({"weight_shape": np.array([64, 2**30])}, ShapeError, "32 words for 1073741824 inputs fit none"),
        ({"weight_shape": np.array([65, 256])}, ShapeError, r"\(64, 32\), expected \(65, any\)"),
        ({"weight_shape": np.array([64.0, 256.0])}, QuantError, "float64, expected int64 or int32"),
        ({"weight_packed": np.zeros((64, 33), np.int32)}, ShapeError, "33 words for 256 inputs"),
        ({"weight_scale": np.zeros((64, 5), np.float16)}, ShapeError, "groups = 5 for 256 inputs, expected a divisor"),
        ({"weight_g_idx": np.full(256, 9, np.int32)}, RangeError, "g_idx in 9..9"),
    ],
)
def test_hostile_arrays_are_named(linear, change, error, message):
    with pytest.raises(error, match=message):
        ct.unpack_packed({**ct.pack_packed(linear(zero="middle")), **change})


def test_what_the_layout_cannot_hold_is_refused(linear):
    with pytest.raises(RangeError, match=r"zero_point in -1\.\.-1, expected codes of 4 bits"):
        odd = linear()
        ct.pack_packed(dataclasses.replace(odd, zero_point=np.full_like(odd.zero_point, -1)))
    with pytest.raises(RangeError, match="int-quantized has no act-order"):
        ct.pack_int(linear(8, g_idx=True))
