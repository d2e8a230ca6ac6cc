"""AWQ GEMM, GEMV and GEMVFast against one nibble at a time."""

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts import awq


@pytest.mark.parametrize("outs, ins, group_size", [(8, 64, 64), (64, 256, 32), (24, 128, 128), (16, 96, 96)])
def test_gemm_has_every_nibble_where_the_naive_loop_puts_it(linear, same, outs, ins, group_size):
    ref = linear(4, outs, ins, group_size)
    got = awq.pack_gemm(ref)
    qweight, qzeros = naive.awq_gemm(ref.codes.tolist(), ref.zero_point.tolist())
    np.testing.assert_array_equal(got["qweight"].view(np.uint32), qweight)
    np.testing.assert_array_equal(got["qzeros"].view(np.uint32), qzeros)
    np.testing.assert_array_equal(got["scales"], ref.scale.T.astype(np.float16))
    same(awq.unpack_gemm(got), ref)


@pytest.mark.parametrize(
    "ins, group_size, width", [(256, 64, 2), (256, 32, 4), (1024, 128, 1), (4096, 128, 4), (2048, 32, 8)]
)
def test_gemv_is_a_stream_with_padded_zeros(linear, same, ins, group_size, width):
    ref = linear(4, 8, ins, group_size)
    got = awq.pack_gemv(ref)
    np.testing.assert_array_equal(got["qweight"].view(np.uint32), naive.stream(ref.codes.tolist(), 4))
    padded = np.zeros((8, 8 * width), np.uint8)
    padded[:, : ref.groups] = ref.zero_point
    np.testing.assert_array_equal(got["qzeros"].view(np.uint32), naive.stream(padded.tolist(), 4))
    assert got["scales"].shape == (8, 8 * width)
    assert not got["scales"][:, ref.groups :].any()
    same(awq.unpack_gemv(got), ref)


def test_gemv_fast_interleaves_four_outputs(linear):
    ref = linear(4, 12, 256, 64, zero="middle")
    got = awq.pack_gemv_fast(ref)
    assert got["qweight"].dtype == np.int16
    np.testing.assert_array_equal(got["qweight"].view(np.uint16), naive.awq_gemv_fast(ref.codes.tolist()))
    read = awq.unpack_gemv_fast(got)
    np.testing.assert_array_equal(read.codes, ref.codes)
    np.testing.assert_array_equal(read.scale, ref.scale)
    np.testing.assert_array_equal(read.offset, -8 * ref.scale)
    np.testing.assert_array_equal(read.dequantize(), ref.dequantize())


def test_gemv_fast_refuses_a_product_that_float16_rounds(linear):
    fine = linear(4, 8, 256, 64)
    fine.scale[1, 1] = np.float16(1 + 2**-10)  # 11 bits, times 3: 12 bits and more
    fine.zero_point[1, 1] = 3
    with pytest.raises(RangeError, match=r"qzeros \(-scale \* zero_point\)\[1, 1\] = -3.0029297"):
        awq.pack_gemv_fast(fine)


def test_what_the_layouts_cannot_hold_is_refused(linear):
    with pytest.raises(RangeError, match="bits = 3, expected 4"):
        awq.pack_gemm(linear(3))
    with pytest.raises(ShapeError, match="out = 12, expected a positive multiple of 8"):
        awq.pack_gemm(linear(4, 12))
    with pytest.raises(RangeError, match=r"g_idx\[\d+\] = \d, expected groups of neighbouring inputs"):
        awq.pack_gemm(linear(g_idx=True))
    with pytest.raises(ShapeError, match="group_size = 16, expected 32, 64, or 128 and more"):
        awq.pack_gemv(linear(4, 8, 64, 16))
    with pytest.raises(RangeError, match="divides by its scale"):
        awq.pack_gemm(linear(zero="middle", divide=True))


@pytest.mark.parametrize(
    "read, change, error, message",
    [
        (awq.unpack_gemm, {"scales": np.zeros((4, 65), np.float16)}, ShapeError, r"\(4, 65\), expected \(4, 64\)"),
        (awq.unpack_gemm, {"qzeros": np.zeros((4, 7), np.int32)}, ShapeError, r"\(4, 7\), expected \(any, 8\)"),
        (awq.unpack_gemm, {"qweight": np.zeros((256, 8), np.uint8)}, QuantError, "uint8, expected int32"),
        (
            awq.unpack_gemm,
            {"qweight": np.zeros((255, 8), np.int32), "qzeros": np.zeros((4, 8), np.int16)},
            QuantError,
            "int16",
        ),
    ],
)
def test_hostile_arrays_are_named(linear, read, change, error, message):
    with pytest.raises(error, match=message):
        read({**awq.pack_gemm(linear()), **change})


def test_padded_scales_of_zeros_do_not_tell_the_groups(linear, same):
    ref = linear(4, 8, 256, 64)
    ref.scale[:] = 0
    arrays = awq.pack_gemv(ref)
    with pytest.raises(ShapeError, match="0 of them not zero, for 256 inputs"):
        awq.unpack_gemv(arrays)
    same(awq.unpack_gemv(arrays, group_size=64), ref)
