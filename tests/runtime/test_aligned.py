"""Memory that begins on a cache line, and that everything a step writes lies in such memory."""

import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.models import ModelConfig
from runtime.aligned import ALIGNMENT, zeros
from runtime.cache import KVCache
from runtime.scratch import Scratch, arrays_of


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("shape", [1, 33, (3, 5), (2, 1, 7)])
def test_zeros_begin_on_a_cache_line(shape, dtype):
    got = zeros(shape, dtype)
    assert got.ctypes.data % ALIGNMENT == 0
    np.testing.assert_array_equal(got, np.zeros(shape, dtype))
    assert got.dtype == dtype and got.flags.c_contiguous and got.flags.writeable


def test_activations_and_the_cache_begin_on_cache_lines(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", arch="qwen2", types="Q8_0")) as file:
        config = ModelConfig.from_metadata(file)
    cache = KVCache(config, 300)
    found = [*arrays_of(Scratch(config, 7, 2, 2)), cache.keys, cache.values]
    assert len(found) > 10
    assert {array.ctypes.data % ALIGNMENT for array in found} == {0}
