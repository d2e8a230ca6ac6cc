"""Mean squared errors on unit Gaussians: figures that no model and no library is needed for."""

import numpy as np
import pytest

from refquant import quantize

SAMPLES, CHUNK = 2**23, 2**20
ANCHORS = {  # groups of 64 but where said; reference values, half a percent either way
    "nf4": 0.00846,
    "uint4-g64": 0.00830,
    "int4-g64": 0.01057,
    "int4-g64-restricted": 0.01159,
    "int4-g64-signedmax": 0.00902,
    "mxfp4": 0.01322,  # groups of 32
    "mxfp4-even": 0.01251,
    "mxfp4-rceil": 0.01333,
    "nvfp4": 0.00904,  # groups of 16, and one scale for 2^20 values
    "bnb_fp4": 0.01489,
}


@pytest.fixture(scope="module")
def errors():
    rng = np.random.default_rng([SAMPLES, 64])
    sums = dict.fromkeys(ANCHORS, 0.0)
    for _ in range(SAMPLES // CHUNK):
        x = rng.standard_normal((CHUNK // 1024, 1024), dtype=np.float32)
        for scheme in ANCHORS:
            sums[scheme] += float(np.square(quantize(x, scheme).dequantize() - x).sum(dtype=np.float64))
    return {scheme: total / SAMPLES for scheme, total in sums.items()}


@pytest.mark.parametrize("scheme", ANCHORS)
def test_error_on_unit_gaussians_is_the_known_one(scheme, errors):
    assert errors[scheme] == pytest.approx(ANCHORS[scheme], rel=0.005)


def test_half_range_is_nine_percent_below_restricted_at_four_bits(errors):
    assert errors["int4-g64"] / errors["int4-g64-restricted"] == pytest.approx(0.91, abs=0.01)
