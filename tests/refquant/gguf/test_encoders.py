"""Every encoder but the I-quants' against ggml's bytes, with and without importance, and what holds for all of them."""

import json
from pathlib import Path

import ggml_cases
import numpy as np
import pytest

from refquant.errors import NonFiniteError, QuantError, RangeError, ShapeError
from refquant.gguf import formats
from refquant.gguf.formats import FORMATS, dequantize, quantize

DIGESTS = json.loads((Path(__file__).parent / "ggml_digests.json").read_text())
PLAIN, WEIGHTED = DIGESTS["encode"], DIGESTS["encode_weighted"]
BLOCKS = [name for name in PLAIN if not FORMATS[name].is_scalar]
IGNORE = ["F32", "F16", "BF16", "Q8_0", "Q8_1", "Q8_K", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"]
ROW = 512

# Root mean square error on N(0, 1), a little above what is measured.
ERROR = {
    "F16": 0.0003, "BF16": 0.002, "Q8_0": 0.006, "Q8_1": 0.006, "Q8_K": 0.008, "Q6_K": 0.02, "Q5_1": 0.04,
    "Q5_0": 0.05, "Q5_K": 0.04, "Q4_1": 0.09, "Q4_0": 0.1, "Q4_K": 0.08, "Q3_K": 0.16, "Q2_K": 0.31, "MXFP4": 0.14,
    "NVFP4": 0.11, "TQ1_0": 1, "TQ2_0": 1, "Q1_0": 0.7, "Q2_0": 0.8,
}  # fmt: skip


def rows(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def importance(n=ROW):
    return np.random.default_rng(n).exponential(size=n).astype(np.float32)


@pytest.mark.parametrize("name", PLAIN)
def test_encoded_bytes_are_those_of_ggml(name):
    got = {kind: ggml_cases.digest(quantize(x, name)) for kind, x in ggml_cases.weights().items()}
    assert got == PLAIN[name]


@pytest.mark.parametrize("matrix", ggml_cases.importances())
@pytest.mark.parametrize("name", WEIGHTED)
def test_encoded_bytes_are_those_of_ggml_with_an_importance_matrix(name, matrix):
    v = ggml_cases.importances()[matrix]
    got = {kind: ggml_cases.digest(quantize(x, name, v)) for kind, x in ggml_cases.weights().items()}
    assert got == WEIGHTED[name][matrix]


def test_the_table_of_digests_has_every_encoder_matrix_and_kind_of_weights():
    kinds, matrices = set(ggml_cases.weights()), set(ggml_cases.importances())
    ours = [f for f in FORMATS.values() if not f.name.startswith("IQ")]
    assert set(PLAIN) == {f.name for f in ours if f.encode is not None} - {"F32"}
    assert set(WEIGHTED) == {f.name for f in ours if f.encode_weighted is not None}
    assert all(set(of) == kinds for of in PLAIN.values())
    assert all(set(of) == matrices for of in WEIGHTED.values())
    assert all(set(of) == kinds for table in WEIGHTED.values() for of in table.values())


def test_the_types_that_ignore_importance():
    assert {f.name for f in FORMATS.values() if f.encode is not None and f.encode_weighted is None} == set(IGNORE)
    for name in IGNORE:
        np.testing.assert_array_equal(quantize(rows(2, ROW), name, importance()), quantize(rows(2, ROW), name))


@pytest.mark.parametrize("name", ERROR)
def test_the_error_is_what_the_bits_allow(name):
    x = rows(64, ROW)
    error = np.sqrt(np.mean((dequantize(quantize(x, name), name) - x) ** 2))
    assert 0.5 * ERROR[name] < error < ERROR[name]


@pytest.mark.parametrize("name", WEIGHTED)
def test_importance_moves_the_error_to_where_it_matters_less(name):
    x, v = rows(256, ROW), importance() ** 2
    plain, weighted = ((dequantize(quantize(x, name, m), name) - x) ** 2 for m in (None, v))
    assert (v * weighted).mean() < 0.97 * (v * plain).mean()


@pytest.mark.parametrize("name", WEIGHTED)
def test_ones_are_not_the_same_as_no_importance(name):
    assert (quantize(rows(4, ROW), name, np.ones(ROW, np.float32)) != quantize(rows(4, ROW), name)).any()


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_cut_into_slabs_cannot_be_seen(name, monkeypatch):
    x = rows(5, ROW)
    data = quantize(x, name, importance())
    monkeypatch.setattr(formats, "SLAB", 2 * ROW)
    np.testing.assert_array_equal(quantize(x, name, importance()), data)
    monkeypatch.setattr(formats, "SLAB", 1)
    np.testing.assert_array_equal(quantize(x, name, importance()), data)


@pytest.mark.parametrize("name", WEIGHTED)
def test_leading_axes_are_kept_with_importance(name):
    flat = quantize(rows(6, ROW), name, importance())
    for shape in ((6,), (2, 3), (6, 1)):
        got = quantize(rows(6, ROW).reshape(*shape, ROW), name, importance())
        np.testing.assert_array_equal(got, flat.reshape(*shape, -1))
    np.testing.assert_array_equal(quantize(rows(6, ROW)[2], name, importance()), flat[2])
    assert quantize(np.empty((0, ROW), np.float32), name, importance()).shape == (0, flat.shape[1])


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_the_legacy_types_weigh_by_the_mean_square_of_the_whole_row(name):
    row, louder = rows(2, ROW)
    louder = np.concatenate([row[:32], 100 * louder[32:]])
    size = FORMATS[name].block_bytes
    assert (quantize(row, name, importance())[:size] != quantize(louder, name, importance())[:size]).any()


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0"])
def test_a_block_without_importance_loses_its_weights_in_the_symmetric_legacy_types(name):
    v = importance()
    v[32:64] = 0
    got = dequantize(quantize(rows(ROW), name, v), name).reshape(-1, 32)
    assert (got != 0).any(axis=1).tolist() == [True, False, *[True] * (ROW // 32 - 2)]


@pytest.mark.parametrize("name", ["Q4_1", "Q5_1"])
def test_a_block_without_importance_keeps_its_range_in_the_asymmetric_legacy_types(name):
    x = rows(ROW)
    got = dequantize(quantize(x, name, np.zeros(ROW, np.float32)), name)
    assert np.abs(got - x).max() < 0.51 * np.ptp(x.reshape(-1, 32), axis=1).max() / 15


def test_the_importance_of_float64_is_rounded_to_float32():
    v = importance().astype(np.float64) * (1 + 2.0**-40)
    np.testing.assert_array_equal(quantize(rows(2, ROW), "Q4_K", v), quantize(rows(2, ROW), "Q4_K", importance()))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "Q8_0", "F32"])
@pytest.mark.parametrize(
    "v, error, message",
    [
        (np.ones(ROW - 1, np.float32), ShapeError, r"imatrix.shape = \(511,\), expected \(512,\)"),
        (np.ones((2, ROW), np.float32), ShapeError, r"imatrix.shape = \(2, 512\), expected \(512,\)"),
        (np.float32(1), ShapeError, r"imatrix.shape = \(\), expected \(512,\)"),
        (np.ones(ROW, int), QuantError, "imatrix.dtype = int64, expected a floating dtype"),
        (np.full(ROW, np.nan), NonFiniteError, r"imatrix.flat\[0\] = nan"),
        (np.full(ROW, np.inf), NonFiniteError, r"imatrix.flat\[0\] = inf"),
        (np.full(ROW, -0.5), RangeError, r"min\(imatrix\) = -0.5, expected values of at least 0"),
        (np.full(ROW, 1e39), RangeError, r"max\|imatrix\| = 1e\+39, expected a value within float32"),
    ],
)
def test_quantize_refuses_importance_that_is_none(name, v, error, message):
    with pytest.raises(error, match=message) as caught:
        quantize(rows(2, ROW), name, v)
    assert str(caught.value).startswith("gguf.quantize: ")


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_encoders_refuse_what_is_not_finite(name, bad):
    fmt = FORMATS[name]
    x = np.ones((2, fmt.values), np.float32)
    x[1, 3] = bad
    for encode in (fmt.encode, fmt.encode_weighted and (lambda x: fmt.encode_weighted(x[None], np.ones_like(x)))):
        if encode is not None:
            with pytest.raises(NonFiniteError, match=rf"{name}.encode: x.flat\[{fmt.values + 3}\] = {bad}"):
                encode(x)


@pytest.mark.parametrize("name", BLOCKS)
def test_encoders_take_blocks_of_any_shape(name):
    fmt = FORMATS[name]
    x = ggml_cases.weights()["bell"].reshape(-1, fmt.values)[:6]
    flat = fmt.encode(x)
    for shape in ((), (1, 6), (2, 3), (0,), (2, 0)):
        count = int(np.prod(shape))
        got = fmt.encode(x[:count].reshape(*shape, fmt.values))
        assert got.shape == shape
        assert got.dtype == fmt.layout
        np.testing.assert_array_equal(got, flat[:count].reshape(shape))


@pytest.mark.parametrize("name", PLAIN)
def test_zeros_decode_to_zeros(name):
    fmt = FORMATS[name]
    zeros = np.zeros(2 * max(fmt.values, 32), np.float32)
    for v in (None, np.ones_like(zeros)):
        np.testing.assert_array_equal(dequantize(quantize(zeros, name, v), name), 0)
