import doctest
import importlib
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from strategies import rows, seeded

import refquant
from refquant import SCHEMES, affine, gguf, quantize
from refquant.errors import NonFiniteError, QuantError, RangeError, SchemeError, ShapeError, UnsupportedError

LINEAR = ["int8", "int4-g32", "uint4-g32", "int4-channel", "int2-token", "nf4-g32"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_registered_name_quantizes_and_comes_back_near(scheme):
    x = np.random.default_rng([256, 512]).standard_normal((256, 512), dtype=np.float32)
    x = np.abs(x) if scheme.startswith("udynamic") else x
    q = quantize(x, scheme, rng=np.random.default_rng(0))
    assert q.scheme == SCHEMES[scheme]
    assert q.shape == x.shape
    bits = getattr(q.scheme.rule, "bits", q.scheme.bits_per_weight)
    error = np.square(q.dequantize() - x).mean()
    even = isinstance(q.scheme.rule, affine.Rule | gguf.BlockFormat)  # others have their bits where x is small
    assert error < 12 * 4.0 ** -min(bits, 8 if even else 5)  # the square of a step, for some 7 standard deviations


@seeded
@given(row=rows(64))
def test_no_row_makes_a_warning_or_a_value_that_is_not_finite(row):
    for scheme in ("int8", "int4-g32-restricted", "uint4-g32", "int4-g32-signedmax", "int1", "nf4"):
        assert np.isfinite(quantize(row, scheme).dequantize()).all()


@pytest.mark.parametrize("scheme", LINEAR)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_dtypes_give_the_codes_of_their_float32_values(scheme, dtype):
    x = np.random.default_rng([4, 64]).standard_normal((4, 64)).astype(dtype)
    got, ref = quantize(x, scheme), quantize(x.astype(np.float32), scheme)
    np.testing.assert_array_equal(got.codes, ref.codes)
    np.testing.assert_array_equal(got.scale, ref.scale)


@pytest.mark.parametrize("scheme", [*LINEAR, "Q8_0", "F16"])
def test_layout_in_memory_does_not_matter(scheme):
    x = np.random.default_rng([64, 64]).standard_normal((64, 64), dtype=np.float32)
    ref = quantize(np.ascontiguousarray(x.T), scheme)
    before = x.copy()
    for view in (x.T, np.repeat(x.T, 2, axis=1)[:, ::2], x[::-1].T[:, ::-1]):
        got = quantize(view, scheme)
        np.testing.assert_array_equal(got.codes, ref.codes)
        np.testing.assert_array_equal(got.dequantize(), ref.dequantize())
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("shape", [(64,), (2, 64), (2, 3, 64), (1, 2, 1, 64)])
@pytest.mark.parametrize("scheme", ["int8", "uint4-g32", "nf4", "int4-token", "Q4_0", "F16"])
def test_any_number_of_axes_works(shape, scheme):
    x = np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)
    q = quantize(x, scheme)
    assert q.dequantize().shape == shape
    flat = quantize(x.reshape(-1, 64), scheme)
    np.testing.assert_array_equal(q.dequantize().reshape(-1, 64), flat.dequantize())


def test_ggml_types_hold_the_bytes_of_gguf():
    x = np.random.default_rng([4, 256]).standard_normal((4, 256), dtype=np.float32)
    for name in ("Q4_0", "Q8_0", "F16", "BF16"):
        q = quantize(x, name)
        np.testing.assert_array_equal(q.codes, gguf.quantize(x, name))
        np.testing.assert_array_equal(q.dequantize(), gguf.dequantize(q.codes, name))
        assert (q.scale, q.zero_point) == (None, None)


def test_the_linear_twin_of_q4_0_differs_only_where_rounding_does():
    x = np.random.default_rng([64, 256]).standard_normal((64, 256), dtype=np.float32)
    blocks = gguf.quantize(x, "Q4_0")
    twin = quantize(x, "int4-g32-signedmax-f16-wide-half_up")
    error = np.abs(gguf.dequantize(blocks, "Q4_0") - twin.dequantize())
    assert (error > 0).mean() < 0.001  # ggml multiplies by the reciprocal and adds 8.5 in float32


def test_options_and_words_are_the_same():
    x = np.random.default_rng([4, 64]).standard_normal((4, 64), dtype=np.float32)
    got, ref = quantize(x, "int4-g32", range_mode="signedmax"), quantize(x, "int4-g32-signedmax")
    assert got.scheme == ref.scheme
    np.testing.assert_array_equal(got.codes, ref.codes)


def test_stochastic_rounding_repeats_with_its_generator():
    x = np.random.default_rng([4, 64]).standard_normal((4, 64), dtype=np.float32)
    first, again = (quantize(x, "int4-stochastic", rng=np.random.default_rng(3)).codes for _ in range(2))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(SchemeError, match="rng = None"):
        quantize(x, "int4-stochastic")


@pytest.mark.parametrize(
    "scheme", ["int8", "int4-g128-asym", "uint4-b128x128", "nf4", "int1-channel", "int4-g32-signedmax"]
)
def test_memory_stays_below_twice_the_input(scheme):
    x = np.random.default_rng(11).standard_normal((2048, 2048), dtype=np.float32)
    tracemalloc.start()
    try:
        quantize(x, scheme).dequantize()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (3 if "x" in scheme else 2.5) * x.nbytes


@pytest.mark.parametrize(
    "array, scheme, error, message",
    [
        (
            np.zeros((2, 100), np.float32),
            "int4-g64",
            ShapeError,
            r"quantize: x\.shape\[-1\] = 100, .* pad with zeros to 128",
        ),
        (np.zeros((2, 100), np.float32), "nf4", ShapeError, r"quantize: x\.size = 200, .* for b64"),
        (np.zeros((2, 100), np.float32), "Q4_0", ShapeError, r"= 100, expected a positive multiple of 32"),
        (np.zeros(8, np.float32), "int4-channel", ShapeError, "try tensor"),
        (np.float32(1), "int8", ShapeError, r"array\.ndim = 0"),
        (np.zeros((0, 8)), "int8", ShapeError, r"array\.shape = \(0, 8\), expected at least one value"),
        (np.array([1, np.nan]), "int8", NonFiniteError, r"array\.flat\[1\] = nan"),
        (np.array([np.inf, 1]), "Q8_0", NonFiniteError, r"array\.flat\[0\] = inf"),
        (np.array([1e300, 1]), "nf4", RangeError, r"array\.flat\[0\] = 1e\+300"),
        (np.arange(4), "int8", QuantError, r"array\.dtype = int64, expected one of float16"),
        (np.array([1j]), "int8", QuantError, r"array\.dtype = complex128"),
        (np.array(["x"]), "int8", QuantError, r"array\.dtype = <U1"),
        (np.zeros(256), "Q2_K_S", SchemeError, "nearest are Q2_K"),
        (np.zeros(256), "IQ1_S", UnsupportedError, "this type is only decoded here"),
        (np.array([1e8]), "int8-f16", RangeError, "expected one that float16 holds"),
    ],
)
def test_refusals(array, scheme, error, message):
    with pytest.raises(error, match=message):
        quantize(array, scheme)


@pytest.mark.parametrize("module", ["refquant", "refquant.quantize"])
def test_examples_in_docstrings_are_true(module):
    found = importlib.import_module(module)
    result = doctest.testmod(found, extraglobs={"np": np})
    assert (result.failed, result.attempted > 0) == (0, True)


def test_public_names_exist():
    assert all(hasattr(refquant, name) for name in refquant.__all__)
