"""How much memory a quantization takes at its peak, against the size of its input."""

import tracemalloc

import numpy as np
import pytest

from refquant import quantize

SCHEMES = [
    "nf4",
    "nf4-dq",
    "nf4@bitsandbytes-cpu",
    "bnb_fp4",
    "af4",
    "dynamic8",
    "quantile4-g64",
    "kmeans4-g64",
    "codebook4",
]
SCHEMES += ["int4-g128@gptq", "uint4-g128@awq", "int8-channel@torchao", "uint4-g128@tinygemm", "uint4-g64@hqq"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_encoding_and_decoding_take_at_most_six_times_the_input(scheme):
    x = np.random.default_rng(1).standard_normal((1024, 1024), dtype=np.float32)
    options = {"levels": [-1.0, 0.0, 1.0]} if scheme == "codebook4" else {}
    quantize(x[:2], scheme, **options)
    tracemalloc.start()
    quantize(x, scheme, **options).dequantize()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 6 * x.nbytes
