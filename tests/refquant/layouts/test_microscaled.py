"""NVFP4, MXFP4/6/8 and FP8 layouts: codes against one bit at a time, element values against exact fractions."""

from fractions import Fraction

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.gguf import dequantize
from refquant.layouts import floating, microscaled
from refquant.layouts.floating import Floating


def value(code: int, exponent_bits: int, mantissa_bits: int) -> Fraction:
    """Of one bit pattern, by the definition of OCP: no infinities, no NaN."""
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    exponent, mantissa = (code >> mantissa_bits) % 2**exponent_bits, code % 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    fraction = Fraction(mantissa, 2**mantissa_bits)
    size = fraction * Fraction(2) ** (1 - bias) if exponent == 0 else (1 + fraction) * Fraction(2) ** (exponent - bias)
    return sign * size


WIDTHS = {"e2m1": (2, 1), "e2m3": (2, 3), "e3m2": (3, 2), "e4m3fn": (4, 3), "e5m2": (5, 2)}


@pytest.mark.parametrize("element, widths", WIDTHS.items())
def test_every_element_is_its_fraction(element, widths):
    table = floating.table(element)
    special = {"e4m3fn": {0x7F, 0xFF}, "e5m2": {*range(0x7C, 0x80), *range(0xFC, 0x100)}}.get(element, set())
    for code, got in enumerate(table):
        if code not in special:
            assert Fraction(float(got)) == value(code, *widths), code
        else:
            assert not np.isfinite(got)


def test_scale_bytes_are_powers_of_two():
    table = floating.table("e8m0")
    assert [Fraction(float(v)) for v in table[:255]] == [Fraction(2) ** (e - 127) for e in range(255)]
    assert np.isnan(table[255])


def made(element="e2m1", scale="e4m3fn", block=16, tensor=None, divide=False, outs=6, ins=192) -> Floating:
    rng = np.random.default_rng([outs, ins, block])
    codes = rng.integers(0, 1 << (1 + sum(WIDTHS[element])), (outs, ins)).astype(np.uint8)
    low, high = (100, 150) if scale == "e8m0" else (1, 0x7E)
    scales = rng.integers(low, high, (outs, ins // block), dtype=np.uint8)
    return Floating(codes, element, scales, scale, (1, block), None if tensor is None else np.float32(tensor), divide)


def equal(got: Floating, ref: Floating) -> None:
    assert (got.element, got.scale_dtype, got.block, got.divide) == (
        ref.element,
        ref.scale_dtype,
        ref.block,
        ref.divide,
    )
    assert got.tensor_scale == ref.tensor_scale
    np.testing.assert_array_equal(got.codes, ref.codes)
    np.testing.assert_array_equal(got.scale, ref.scale)


@pytest.mark.parametrize(
    "convention, tensor, divide", [("compressed-tensors", 1234.5, True), ("modelopt", 3e-4, False)]
)
def test_nvfp4(convention, tensor, divide):
    ref = made(tensor=tensor, divide=divide)
    arrays = microscaled.pack_nvfp4(ref, convention)
    data = arrays["weight_packed" if divide else "weight"]
    np.testing.assert_array_equal(data, naive.stream(ref.codes.tolist(), 4, word=8))
    equal(microscaled.unpack_nvfp4(arrays, convention), ref)
    o, i = 3, 100
    element, scale = floating.table("e2m1")[ref.codes[o, i]], floating.table("e4m3fn")[ref.scale[o, i // 16]]
    factor = scale / np.float32(tensor) if divide else scale * np.float32(tensor)
    assert ref.dequantize()[o, i] == element * factor


def test_the_other_convention_is_the_reciprocal():
    ref = made(tensor=2.0**-9)
    arrays = microscaled.pack_nvfp4(ref)
    assert arrays["weight_global_scale"] == [2.0**9]
    np.testing.assert_array_equal(microscaled.unpack_nvfp4(arrays).dequantize(), ref.dequantize())


@pytest.mark.parametrize(
    "element, bits, write, read",
    [
        ("e2m1", 4, microscaled.pack_mxfp4, microscaled.unpack_mxfp4),
        ("e2m3", 6, microscaled.pack_mxfp6, microscaled.unpack_mxfp6),
        ("e4m3fn", 8, microscaled.pack_mxfp8, microscaled.unpack_mxfp8),
    ],
)
def test_mx(element, bits, write, read):
    ref = made(element, "e8m0", 32)
    arrays = write(ref)
    data = arrays.get("weight_packed", arrays.get("weight"))
    np.testing.assert_array_equal(data, naive.stream(ref.codes.tolist(), bits, word=8))
    equal(read(arrays), ref)


def test_mxfp6_has_two_elements():
    ref = made("e3m2", "e8m0", 32)
    equal(microscaled.unpack_mxfp6(microscaled.pack_mxfp6(ref), "e3m2"), ref)


@pytest.mark.parametrize("shape, block", [((), (200, 150)), ((200, 1), (1, 150)), ((2, 2), (128, 128))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8(shape, block, dtype):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (200, 150), dtype=np.uint8)
    scale = (rng.integers(1, 200, shape or (1, 1)) / 1024).astype(np.float32)
    ref = Floating(codes, "e4m3fn", scale, dtype, block)
    arrays = microscaled.pack_fp8(ref)
    assert arrays["weight_scale"].shape == (shape or (1,))
    equal(microscaled.unpack_fp8(arrays), ref)
    assert np.isnan(ref.dequantize()[codes & 0x7F == 0x7F]).all()


@pytest.mark.parametrize("type_name, block, scale", [("MXFP4", 32, "e8m0"), ("NVFP4", 16, "e4m3fn")])
def test_ggml_blocks(type_name, block, scale):
    ref = made("e2m1", scale, block, 1.0 if type_name == "NVFP4" else None)
    arrays = microscaled.pack_ggml(ref, type_name)
    np.testing.assert_array_equal(dequantize(arrays["weight"], type_name), ref.dequantize())
    equal(microscaled.unpack_ggml(arrays, type_name), ref)


def test_bytes_that_mean_something_else_to_ggml_are_refused():
    for type_name, block, scale, byte in (("MXFP4", 32, "e8m0", 255), ("NVFP4", 16, "e4m3fn", 0x7F)):
        ref = made("e2m1", scale, block)
        arrays = microscaled.pack_ggml(ref, type_name)
        ref.scale[1, 1] = byte
        with pytest.raises(RangeError, match="a scale byte of"):
            microscaled.pack_ggml(ref, type_name)
        with pytest.raises(RangeError, match="a scale byte of"):
            microscaled.unpack_ggml({"weight": np.full_like(arrays["weight"], 0xFF)}, type_name)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: microscaled.pack_mxfp4(made()), RangeError, r"expected \('e2m1', 'e8m0', \(1, 32\)\)"),
        (lambda: microscaled.pack_nvfp4(made("e2m1", "e8m0", 32)), RangeError, "element, scale, block"),
        (lambda: microscaled.pack_mxfp6(made("e2m1", "e8m0", 32)), RangeError, "expected e2m3 or e3m2"),
        (lambda: microscaled.pack_nvfp4(made(tensor=0.0)), RangeError, "expected one with a finite reciprocal"),
        (lambda: microscaled.pack_nvfp4(made(), "amd"), RangeError, "convention = 'amd'"),
        (lambda: microscaled.unpack_mxfp4({"weight_packed": np.zeros((2, 24), np.uint8)}), ShapeError, "48, expected"),
        (lambda: microscaled.unpack_ggml({}, "Q4_0"), QuantError, "expected MXFP4 or NVFP4"),
        (
            lambda: Floating(np.zeros((1, 16), np.uint8), "e9", None, "e8m0", (1, 16)),
            RangeError,
            "element, scale_dtype",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_hostile_arrays_are_named():
    arrays = microscaled.pack_nvfp4(made(tensor=5.0, divide=True))
    for change, message in (
        ({"weight_scale": np.zeros((6, 11), np.uint8)}, r"\(6, 11\), expected \(6, 12\)"),
        ({"weight_scale": np.zeros((6, 12), np.float32)}, "float32, expected uint8"),
        ({"weight_global_scale": np.zeros(2, np.float32)}, "expected one number"),
        ({"weight_packed": np.zeros((6, 97), np.uint8)}, "194, expected a positive multiple of 16"),
    ):
        with pytest.raises(QuantError, match=message):
            microscaled.unpack_nvfp4({**arrays, **change})
