"""MXFP4 of gguf-py against the OCP rules: the same blocks wherever both are defined."""

import numpy as np
import pytest
from small_float_blocks import blocks

from refquant import minifloat, quantize
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")


def by_gguf(peer, x):
    """(scale bytes, codes), a block a row."""
    gguf = peer("gguf")
    data = gguf.quantize(x, gguf.GGMLQuantizationType.MXFP4)
    return data[:, :1], np.hstack([data[:, 1:] & 15, data[:, 1:] >> 4])


def test_the_ggml_dialect_equals_gguf_from_2_to_the_minus_125_on(peer):
    for kind, x in blocks(32).items():
        amax = np.abs(x).max(axis=1)
        x = x[(amax >= 2.0**-125) | (amax == 0)]
        if not len(x):
            continue
        scale, codes = by_gguf(peer, x)
        q = quantize(x, "mxfp4@ggml")
        np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e8m0"]), scale, err_msg=kind)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_item_29_gguf_wraps_a_small_exponent_and_hides_a_nan(peer):
    x = np.zeros((2, 32), np.float32)
    x[0, 0], x[1, 0] = 2.0**-130, np.nan
    with np.errstate(all="ignore"):
        scale, codes = by_gguf(peer, x)
    assert scale[0, 0] == 251
    assert scale[1, 0] == 0
    assert not codes.any()
    assert minifloat.encode(quantize(x[:1], "mxfp4@ggml").scale, FORMATS["e8m0"]) == 0


def test_item_14_and_15_gguf_takes_the_smaller_magnitude_of_a_tie_and_no_minus_zero(peer):
    x = np.resize([4.0, 0.25, 0.75, -2.5, -0.0, -0.1], 32).astype(np.float32)[None]
    assert by_gguf(peer, x)[1][0, :6].tolist() == [6, 0, 1, 12, 0, 0]
    assert quantize(x, "mxfp4").codes[0, :6].tolist() == [6, 0, 2, 12, 8, 8]
