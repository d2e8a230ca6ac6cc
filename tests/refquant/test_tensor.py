import numpy as np
import pytest

import refquant
from refquant import QuantizedTensor, bits, quantize
from refquant.errors import QuantError

X = np.random.default_rng([8, 256]).standard_normal((8, 256), dtype=np.float32)
SPELLINGS = ["int8", "uint4-g64", "int3-channel", "nf4", "Q4_0", "BF16"]


@pytest.mark.parametrize("scheme", SPELLINGS)
def test_arrays_are_read_only_and_the_record_is_frozen(scheme):
    q = quantize(X, scheme)
    for array in (q.codes, q.scale, q.zero_point):
        assert array is None or not array.flags.writeable
    with pytest.raises(AttributeError):
        q.shape = (1,)


@pytest.mark.parametrize("scheme", SPELLINGS)
def test_dequantize_makes_a_new_float32_array_of_the_shape(scheme):
    q = quantize(X, scheme)
    got = q.dequantize()
    assert (got.dtype, got.shape, got.flags.writeable) == (np.float32, X.shape, True)
    np.testing.assert_array_equal(refquant.dequantize(q), got)


def test_numpy_functions_see_the_dequantized_values():
    q = quantize(X, "int8-channel")
    np.testing.assert_array_equal(np.asarray(q), q.dequantize())
    assert np.asarray(q, np.float64).dtype == np.float64
    np.testing.assert_allclose(X @ np.asarray(q).T, X @ X.T, atol=0.5)
    with pytest.raises(QuantError, match="copy = False"):
        np.array(q, copy=False)


def test_bytes_are_those_of_packed_codes_scales_and_zero_points():
    q = quantize(X, "uint4-g64")
    packed = (
        bits.pack(q.codes, 4).nbytes + q.scale.astype(np.float32).nbytes + bits.pack(q.zero_point.ravel(), 4).nbytes
    )
    assert q.nbytes == packed == q.scheme.nbytes(X.shape)
    assert q.bits_per_weight == 8 * packed / X.size
    assert quantize(X, "Q4_0").nbytes == quantize(X, "Q4_0").codes.nbytes


def test_repr_is_short_and_says_what_matters():
    text = repr(quantize(X, "int4-g128"))
    assert text == "QuantizedTensor(int4-g128, shape=(8, 256), 4.25 bits per weight, 1,088 bytes)"


def test_extras_are_kept_read_only_and_counted():
    q = quantize(X, "int8")
    more = QuantizedTensor(q.codes, q.scale, q.zero_point, q.scheme, q.shape, {"table": np.zeros(4, np.float32)})
    assert more.nbytes == q.nbytes + 16
    assert not more.extras["table"].flags.writeable
    with pytest.raises(TypeError):
        more.extras["table"] = None
