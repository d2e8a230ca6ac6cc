"""The table of types, and quantize and dequantize at the public edge."""

import tracemalloc
from dataclasses import FrozenInstanceError

import gguf
import numpy as np
import pytest

from refquant.errors import NonFiniteError, QuantError, RangeError, SchemeError, ShapeError, UnsupportedError
from refquant.gguf import formats
from refquant.gguf.formats import FORMATS, FORMATS_BY_ID, REJECTED_IDS, dequantize, quantize

PUBLISHED = """
    0 F32 1 4       1 F16 1 2       2 Q4_0 32 18      3 Q4_1 32 20      6 Q5_0 32 22      7 Q5_1 32 24
    8 Q8_0 32 34    9 Q8_1 32 36    10 Q2_K 256 84    11 Q3_K 256 110   12 Q4_K 256 144   13 Q5_K 256 176
    14 Q6_K 256 210       15 Q8_K 256 292      16 IQ2_XXS 256 66   17 IQ2_XS 256 74   18 IQ3_XXS 256 98
    19 IQ1_S 256 50       20 IQ4_NL 32 18      21 IQ3_S 256 110    22 IQ2_S 256 82    23 IQ4_XS 256 136
    24 I8 1 1       25 I16 1 2      26 I32 1 4        27 I64 1 8        28 F64 1 8        29 IQ1_M 256 56
    30 BF16 1 2     34 TQ1_0 256 54    35 TQ2_0 256 66    39 MXFP4 32 17    40 NVFP4 64 36
    41 Q1_0 128 18  42 Q2_0 64 18
"""  # id, name, weights and bytes of a block: ggml.h and ggml-common.h
ENCODERS = [f.name for f in FORMATS.values() if f.encode is not None]


def rows(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def test_every_type_has_the_published_id_name_and_block():
    words = PUBLISHED.split()
    ref = [(words[i + 1], int(words[i]), int(words[i + 2]), int(words[i + 3])) for i in range(0, len(words), 4)]
    assert [(f.name, f.ggml_id, f.values, f.block_bytes) for f in FORMATS.values()] == ref


def test_every_id_below_43_is_known_or_refused_and_none_is_both():
    assert set(FORMATS_BY_ID) | {i for i in REJECTED_IDS if i < 43} == set(range(43))
    assert not set(FORMATS_BY_ID) & set(REJECTED_IDS)
    assert all(FORMATS_BY_ID[f.ggml_id] is f for f in FORMATS.values())


def test_gguf_py_agrees_where_it_knows_the_type():
    for kind in gguf.GGMLQuantizationType:
        fmt = FORMATS[kind.name]
        assert fmt.ggml_id == kind.value
        if kind.name != "Q8_1":  # gguf-py has 40 bytes, the layout of before d and s became float16
            assert (fmt.values, fmt.block_bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_refused_ids_name_the_type_and_say_what_to_do():
    assert REJECTED_IDS[4].startswith("Q4_2 was removed") and "convert" in REJECTED_IDS[4]
    assert REJECTED_IDS[31].startswith("Q4_0_4_4 was removed") and "Q4_0 file" in REJECTED_IDS[31]
    assert REJECTED_IDS[38].startswith("IQ4_NL_8_8 was removed") and "IQ4_NL file" in REJECTED_IDS[38]
    for ik in (133, 137, 144, 151, 155, 202, 399):
        assert "only in ik_llama.cpp" in REJECTED_IDS[ik]
    assert REJECTED_IDS[133].startswith("Q6_0 ")


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_layouts_are_unpadded_and_little_endian(fmt):
    fields = [fmt.layout[name] for name in fmt.layout.names] if fmt.layout.names else [fmt.layout]
    assert sum(field.itemsize for field in fields) == fmt.layout.itemsize
    assert all(field.base.str[0] in "<|" for field in fields)
    assert fmt.is_scalar == (fmt.layout.names is None)


@pytest.mark.parametrize(
    "name, bits", [("F32", 32), ("Q4_0", 4.5), ("Q6_K", 6.5625), ("IQ1_S", 1.5625), ("Q1_0", 1.125)]
)
def test_bits_per_weight(name, bits):
    assert FORMATS[name].bits_per_weight == bits


def test_records_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        FORMATS["Q4_0"].values = 64


def test_every_type_of_weights_has_an_encoder_and_three_need_importance():
    numbers = {"I8", "I16", "I32", "I64", "F64"}
    assert set(FORMATS) - set(ENCODERS) == numbers | {"IQ2_XXS", "IQ2_XS", "IQ1_S"}
    assert {f.name for f in FORMATS.values() if f.encode is None and f.encode_weighted is None} == numbers


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("shape", [(256,), (3, 256), (2, 3, 256), (0, 256)])
def test_leading_axes_are_kept(name, shape):
    fmt, x = FORMATS[name], rows(*shape)
    data = quantize(x, name)
    assert data.dtype == np.uint8
    assert data.shape == (*shape[:-1], 256 // fmt.values * fmt.block_bytes)
    again = dequantize(data, name)
    assert again.dtype == np.float32
    assert again.shape == shape
    assert ((again - x) ** 2).sum() <= 0.99 * (x**2).sum()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_cut_into_slabs_cannot_be_seen(name, monkeypatch):
    x = rows(5, 512)
    data, again = quantize(x, name), dequantize(quantize(x, name), name)
    monkeypatch.setattr(formats, "SLAB", 768)
    np.testing.assert_array_equal(quantize(x, name), data)
    np.testing.assert_array_equal(dequantize(data, name), again)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_float_types_are_rounded_to_float32_first(dtype):
    x = rows(2, 256).astype(dtype)
    for name in ENCODERS:
        np.testing.assert_array_equal(quantize(x, name), quantize(x.astype(np.float32), name))


@pytest.mark.parametrize("name", ["F32", "F16", "F64", "I8", "I16", "I32", "I64", "BF16"])
def test_scalar_tensors_decode_from_their_own_dtype_and_from_bytes(name):
    typed = np.arange(-6, 6).reshape(3, 4).astype(FORMATS[name].layout)
    if name == "BF16":
        typed = (np.arange(-6, 6, dtype=np.float32).reshape(3, 4).view(np.uint32) >> 16).astype(np.uint16)
    for data in (typed, typed.view(np.uint8)):
        np.testing.assert_array_equal(dequantize(data, name), np.arange(-6, 6, dtype=np.float32).reshape(3, 4))


def test_arguments_may_be_read_only_and_strided_and_are_not_changed():
    x = rows(8, 128)[::2, :64]
    x.flags.writeable = False
    before = x.copy()
    data = np.repeat(quantize(x, "Q5_1"), 2, axis=0)[::2]
    data.flags.writeable = False
    dequantize(data, "Q5_1")
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(data, quantize(before, "Q5_1"))


def test_dequantize_of_float32_is_a_copy():
    x = rows(2, 32)
    assert not np.shares_memory(dequantize(x, "F32"), x)


@pytest.mark.parametrize("name", ["Q6_K", "IQ2_S", "F16"])
def test_dequantize_needs_little_more_than_its_result(name):
    fmt = FORMATS[name]
    data = np.zeros((4096, 2048 // fmt.values * fmt.block_bytes), np.uint8)  # 32 MiB of float32
    dequantize(data[:1], name)
    tracemalloc.start()
    try:
        out = dequantize(data, name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * out.nbytes


@pytest.mark.parametrize(
    "x, name, error, message",
    [
        (rows(2, 60), "Q4_0", ShapeError, r"x.shape\[-1\] = 60, expected a positive multiple of 32"),
        (rows(2, 0), "Q8_0", ShapeError, r"x.shape\[-1\] = 0, expected a positive multiple of 32"),
        (np.float32(1), "F32", ShapeError, "x.ndim = 0"),
        (np.ones((1, 32), int), "Q4_0", QuantError, "x.dtype = int64, expected a floating dtype"),
        (np.ones((1, 32), complex), "Q4_0", QuantError, "x.dtype = complex128"),
        (np.full((1, 32), 1e39), "Q4_0", RangeError, r"max\|x\| = 1e\+39, expected a value within float32"),
        (rows(1, 256), "I16", UnsupportedError, "'I16', expected a type with an encoder: F32, F16, Q4_0, .*, Q2_0$"),
        (rows(1, 256), "IQ2_XS", UnsupportedError, "imatrix = None, expected an importance matrix, which IQ2_XS needs"),
        (rows(1, 32), "Q4_2", SchemeError, "'Q4_2', expected a ggml type such as .*Q4_0"),
        (rows(1, 32), "q4_0", SchemeError, "'q4_0', expected a ggml type"),
        (rows(1, 32), None, SchemeError, "None, expected a ggml type"),
    ],
)
def test_quantize_refuses(x, name, error, message):
    with pytest.raises(error, match=message) as caught:
        quantize(x, name)
    assert str(caught.value).startswith("gguf.quantize: ")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_quantize_refuses_what_is_not_finite_and_names_the_place(name, bad):
    x = rows(3, 256)
    x[2, 5] = bad
    with pytest.raises(NonFiniteError, match=rf"gguf.quantize: x.flat\[517\] = {bad}"):
        quantize(x, name)


@pytest.mark.parametrize(
    "data, name, error, message",
    [
        (np.zeros((2, 19), np.uint8), "Q4_0", ShapeError, r"data.shape\[-1\] = 19, expected a positive multiple of 18"),
        (np.zeros((2, 0), np.uint8), "Q4_0", ShapeError, r"data.shape\[-1\] = 0, expected a positive multiple of 18"),
        (np.uint8(0), "Q4_0", ShapeError, "data.ndim = 0"),
        (np.zeros((2, 18), np.float32), "Q4_0", QuantError, "data.dtype = float32, expected uint8 for Q4_0"),
        (np.zeros((2, 18), np.float32), "F16", QuantError, "data.dtype = float32, expected uint8 or float16 for F16"),
        (np.zeros((2, 18), np.uint8), "IQ4_KS", SchemeError, "'IQ4_KS', expected a ggml type such as IQ4_XS"),
    ],
)
def test_dequantize_refuses(data, name, error, message):
    with pytest.raises(error, match=message) as caught:
        dequantize(data, name)
    assert str(caught.value).startswith("gguf.dequantize: ")
