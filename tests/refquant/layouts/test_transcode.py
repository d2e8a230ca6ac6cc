"""Transcoding keeps every value, there and back, or says why it cannot."""

import dataclasses
import itertools

import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, SchemeError, ShapeError
from refquant.layouts import LAYOUTS, bitsandbytes, pack, transcode, unpack
from refquant.layouts.floating import Floating
from refquant.layouts.transcode import RECIPROCAL, regroup

OFFSETS = {"awq-gemv_fast", "mlx", "gguf-Q4_1", "torchao-int4"}
SYMMETRIC = (
    *("gptq", "gptq_v2", "gptq_p", "awq-gemm", "awq-gemv", "awq-gemv_fast", "pack-quantized", "modelopt-int4"),
    *("onnx-matmulnbits", "hqq", "quanto", "mlx", "torchao-int4", "gguf-Q4_0", "gguf-Q4_1", "int-quantized"),
)
ASYMMETRIC = ("gptq", "gptq_v2", "awq-gemm", "awq-gemv", "pack-quantized", "onnx-matmulnbits", "hqq", "quanto")


def told(record, name):
    """What the reader of `name` has to be told; int-quantized 4-bit codes are read as bytes otherwise."""
    return LAYOUTS[name].told(record)


@pytest.mark.parametrize("source, target", list(itertools.permutations(SYMMETRIC, 2)))
def test_symmetric_weights_go_everywhere(linear, source, target):
    ref = linear(4, 64, 256, 32, zero="middle")
    arrays = pack(ref, source)
    got = transcode(arrays, source, target, **told(ref, source))
    record = unpack(got, target, **told(ref, target))
    np.testing.assert_array_equal(record.dequantize(), ref.dequantize())
    back = transcode(got, target, source, **told(ref, target))
    assert sorted(back) == sorted(arrays)
    if source == "quanto" and target in OFFSETS:
        return  # quanto has two ways to say it, an integer shift and a float one
    for name in arrays:
        np.testing.assert_array_equal(back[name], arrays[name], err_msg=name)


@pytest.mark.parametrize("source, target", list(itertools.permutations(ASYMMETRIC, 2)))
def test_asymmetric_weights_go_where_zero_points_are_integers(linear, source, target):
    ref = linear(4, 64, 256, 32)
    arrays = pack(ref, source)
    got = transcode(arrays, source, target, **told(ref, source))
    np.testing.assert_array_equal(unpack(got, target, **told(ref, target)).dequantize(), ref.dequantize())
    back = transcode(got, target, source, **told(ref, target))
    for name in arrays:
        np.testing.assert_array_equal(back[name], arrays[name], err_msg=name)


@pytest.mark.parametrize("target", ["mlx", "gguf-Q4_1", "awq-gemv_fast", "torchao-int4"])
def test_asymmetric_weights_become_offsets_where_the_product_is_exact(linear, target):
    ref = linear(4, 64, 256, 32)  # scales of 8 bits, zero points of 4: products of at most 12 bits
    coarse = dataclasses.replace(ref, scale=np.float32(2.0) ** np.floor(np.log2(ref.scale + np.float32(2e-4))))
    got = unpack(transcode(pack(coarse, "gptq"), "gptq", target), target, **told(coarse, target))
    np.testing.assert_array_equal(got.dequantize(), coarse.dequantize())


def act_order(linear):
    return pack(linear(4, g_idx=True, group_size=32), "gptq")


def fine(linear):
    record = linear(4, 64, 256, 32)
    record.scale[0, 1], record.zero_point[0, 1] = np.float16(1 + 2**-10), 3
    return pack(record, "gptq")


def wide(linear):
    record = linear(4, 64, 256, 32, dtype="bfloat16")
    record.scale[2, 1] = 2.0**20
    return pack(record, "pack-quantized")


@pytest.mark.parametrize(
    "arrays, source, target, error, message",
    [
        (
            act_order,
            "gptq",
            "awq-gemm",
            RangeError,
            r"g_idx\[0\] = \d, expected groups of neighbouring inputs: AWQ has no",
        ),
        (act_order, "gptq", "gguf-Q4_0", RangeError, "GGUF Q4_0 has no act-order"),
        (act_order, "gptq", "mlx", RangeError, "MLX has no act-order"),
        (fine, "gptq", "mlx", RangeError, r"biases \(-scale \* zero_point\)\[0, 1\] = -3.0029297, .* float16 holds"),
        (fine, "gptq", "gguf-Q4_1", RangeError, r"m \(-scale \* zero_point\)\[0, 1\]"),
        (fine, "gptq", "gguf-Q4_0", RangeError, "expected 8, the only one of Q4_0"),
        (fine, "gptq", "modelopt-int4", RangeError, "the layout is symmetric"),
        (fine, "gptq", "gguf-Q5_0", RangeError, "bits = 4, expected 5"),
        (
            wide,
            "pack-quantized",
            "gptq",
            RangeError,
            r"scales\[1, 2\] = 1.048576e\+06, expected a value that float16 holds",
        ),
        (fine, "gptq", "deepspeed", RangeError, "1/scale is rounded"),
        (fine, "gptq", "nvfp4-pack-quantized", SchemeError, "record = Linear, expected Floating"),
        (fine, "gptq", "gptq5", SchemeError, "layout = 'gptq5', expected one of gptq"),
    ],
)
def test_what_would_not_be_the_same_is_refused_with_the_reason(linear, arrays, source, target, error, message):
    with pytest.raises(error, match=message):
        transcode(arrays(linear), source, target)


def test_a_minimum_that_is_no_multiple_of_its_scale_is_refused(linear):
    with pytest.raises(RangeError, match=r"offset / scale of group \[0, 2\] = .*, expected an integer"):
        record = linear(4, 8, 256, 32, zero="middle")
        q4_1 = dataclasses.replace(
            record, zero_point=np.zeros_like(record.zero_point), offset=-8 * record.scale + np.float32(0)
        )
        q4_1.scale[0, 2], q4_1.offset[0, 2] = 3 / 4096, -23 / 4096
        transcode(pack(q4_1, "gguf-Q4_1"), "gguf-Q4_1", "gptq")


def test_a_scale_that_is_not_proved_equal_is_refused():
    rng = np.random.default_rng(0)
    rows = bitsandbytes.RowInt8(
        rng.integers(-127, 128, (8, 64)).astype(np.int8), rng.uniform(1, 2, 8).astype(np.float32)
    )
    arrays = pack(rows, "bitsandbytes-int8")
    with pytest.raises(RangeError, match=r"to int-quantized: \d+ of 512 values differ, at"):
        transcode(arrays, "bitsandbytes-int8", "int-quantized")
    got = transcode(arrays, "bitsandbytes-int8", "int-quantized", tolerance=2.0**-22)
    assert got["weight_scale"].shape == (8, 1)


def test_groups_are_split_and_merged_where_they_are_equal(linear):
    ref = linear(4, 8, 256, 128)
    small = regroup(ref, 32)
    assert small.groups == 8
    np.testing.assert_array_equal(small.dequantize(), ref.dequantize())
    again = regroup(small, 128)
    np.testing.assert_array_equal(again.scale, ref.scale)
    arrays = transcode(pack(ref, "gptq"), "gptq", "awq-gemm", group_size=64)
    assert arrays["scales"].shape == (4, 8)
    with pytest.raises(RangeError, match=r"of output \d changes at input \d+, expected equal groups to merge"):
        regroup(ref, 256)
    with pytest.raises(RangeError, match="groups of 128 to 48"):
        regroup(ref, 48)


def nvfp4(tensor, divide, scales=None):
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 16, (16, 256), dtype=np.uint8)
    scale = rng.integers(1, 0x7E, (16, 16), dtype=np.uint8) if scales is None else np.full((16, 16), scales, np.uint8)
    return Floating(codes, "e2m1", scale, "e4m3fn", (1, 16), np.float32(tensor), divide)


def test_nvfp4_conventions_are_equal_for_powers_of_two():
    arrays = pack(nvfp4(1024, True), "nvfp4-pack-quantized")
    got = transcode(arrays, "nvfp4-pack-quantized", "modelopt-nvfp4")
    assert got["weight_scale_2"] == 2.0**-10
    back = transcode(got, "modelopt-nvfp4", "nvfp4-pack-quantized")
    for name in arrays:
        np.testing.assert_array_equal(back[name], arrays[name])


def test_nvfp4_conventions_mostly_differ_in_the_last_bit_elsewhere():
    half = pack(nvfp4(2688 / 0.5, True), "nvfp4-pack-quantized")
    assert transcode(half, "nvfp4-pack-quantized", "modelopt-nvfp4")["weight_scale_2"] == np.float32(0.5 / 2688)
    arrays = pack(nvfp4(2688 / 0.31, True), "nvfp4-pack-quantized")
    with pytest.raises(RangeError, match=r"values differ, .* \(relative 1\.\d+e-07 at most\), expected at most 0"):
        transcode(arrays, "nvfp4-pack-quantized", "modelopt-nvfp4")
    got = transcode(arrays, "nvfp4-pack-quantized", "modelopt-nvfp4", tolerance=RECIPROCAL)
    assert got["weight_scale_2"] == np.float32(1) / np.float32(2688 / 0.31)


def test_mxfp4_goes_to_ggml_and_back():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 16, (16, 256), dtype=np.uint8)
    ref = Floating(codes, "e2m1", rng.integers(0, 255, (16, 8), dtype=np.uint8), "e8m0", (1, 32))
    arrays = pack(ref, "mxfp4-pack-quantized")
    back = transcode(transcode(arrays, "mxfp4-pack-quantized", "gguf-MXFP4"), "gguf-MXFP4", "mxfp4-pack-quantized")
    for name in arrays:
        np.testing.assert_array_equal(back[name], arrays[name])
    with pytest.raises(ShapeError, match="48, expected a positive multiple of 64"):
        odd = Floating(codes[:, :48], "e2m1", np.ones((16, 3), np.uint8), "e4m3fn", (1, 16))
        transcode(pack(odd, "modelopt-nvfp4"), "modelopt-nvfp4", "gguf-NVFP4")


def test_options_that_a_layout_does_not_have_are_named(linear):
    with pytest.raises(SchemeError, match=r"options \['shape'\] of gptq"):
        transcode(pack(linear(), "gptq"), "gptq", "awq-gemm", shape=(1, 2))


def test_reasons_are_quant_errors(linear):
    with pytest.raises(QuantError):
        transcode({}, "gptq", "awq-gemm")
