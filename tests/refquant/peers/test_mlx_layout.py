"""MLX: mx.quantize and mx.dequantize, on the CPU."""

import numpy as np
import pytest

from refquant.layouts import mlx as ours

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def mx(peer):
    core = peer("mlx.core")
    core.set_default_device(core.cpu)
    return core


def arrays_of(mx, parts) -> dict[str, np.ndarray]:
    return {
        name: np.array(a.view(mx.uint16) if a.dtype == mx.bfloat16 else a)
        for name, a in zip(("weight", "scales", "biases"), parts)
    }


@pytest.mark.parametrize("bits", ours.BITS)
@pytest.mark.parametrize("group_size", ours.GROUPS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_its_arrays_round_trip(mx, bits, group_size, dtype):
    x = np.random.default_rng([bits, group_size]).standard_normal((8, 256)).astype(np.float32)
    parts = mx.quantize(mx.array(x).astype(getattr(mx, dtype)), group_size=group_size, bits=bits)
    arrays = arrays_of(mx, parts)
    got = ours.unpack(arrays, bits=bits, group_size=group_size)
    assert got.dtype == dtype
    again = ours.pack(got)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    wide = [parts[0], *(p.astype(mx.float32) for p in parts[1:])]
    ref = np.array(mx.dequantize(*wide, group_size=group_size, bits=bits))
    np.testing.assert_array_equal(got.dequantize(), ref)


@pytest.mark.parametrize("bits", ours.BITS)
def test_it_decodes_every_code_that_we_pack(mx, bits):
    codes = np.tile(np.arange(1 << bits, dtype=np.uint8), max(1, 512 >> bits)).reshape(2, -1)[:, :256]
    codes = np.ascontiguousarray(np.tile(codes, (1, 256 // codes.shape[1])))
    arrays = {"weight": ours.words.pack(codes, bits).view(np.uint32)}
    one, none = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    got = mx.dequantize(mx.array(arrays["weight"]), mx.array(one), mx.array(none), group_size=64, bits=bits)
    np.testing.assert_array_equal(np.array(got), codes)
