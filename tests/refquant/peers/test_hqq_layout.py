"""HQQ: its packers and its decoder."""

import dataclasses

import numpy as np
import pytest

from refquant.layouts import hqq
from refquant.layouts.linear import Linear

pytestmark = pytest.mark.filterwarnings("ignore")
PACKINGS = {8: "8bit_u8", 6: "8bit_u8", 5: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8", 1: "1bit_u8"}
SHAPE, SIZE = (16, 96), 32


def record(bits: int, axis: int) -> Linear:
    rng = np.random.default_rng(bits)
    rows = SHAPE[0] * SHAPE[1] // SIZE
    scale = rng.uniform(0.01, 0.1, (rows, 1)).astype(np.float32)
    zero = rng.uniform(0, 1 << bits, (rows, 1)).astype(np.float32)
    codes = rng.integers(0, 1 << bits, (rows, SIZE), dtype=np.uint8)
    if axis == 0:
        return Linear(codes, scale, zero, bits, SIZE, "float32", shape=SHAPE)
    across = SHAPE[0], SHAPE[1] // SIZE
    return Linear(codes.reshape(SHAPE), scale.reshape(across), zero.reshape(across), bits, SIZE, "float32")


@pytest.mark.parametrize("bits", PACKINGS)
@pytest.mark.parametrize("axis", [0, 1])
def test_bytes_and_values(peer, bits, axis):
    torch, quantizer = peer("torch"), peer("hqq.core.quantize").Quantizer
    ref = record(bits, axis)
    ours = hqq.pack(ref)
    grouped = ref.codes.reshape(-1, SIZE)
    grouped = torch.tensor(grouped if axis == 1 else np.ascontiguousarray(grouped.T))
    packing = quantizer.bit_to_packing[bits]
    assert packing == PACKINGS[bits]
    np.testing.assert_array_equal(quantizer.pack[packing](grouped).numpy(), ours["W_q"])
    meta = {
        "compute_dtype": torch.float32,
        "packing": packing,
        "view_as_float": False,
        "unpack_view_dtype": quantizer.unpack_view_dtype[packing],
        "nbits": bits,
        "group_size": SIZE,
        "axis": axis,
        "shape": torch.Size(ours["shape"].tolist()),
        "scale": torch.tensor(ours["scale"]),
        "zero": torch.tensor(ours["zero"]),
    }
    got = quantizer.dequantize(torch.tensor(ours["W_q"]), meta).numpy()
    np.testing.assert_array_equal(got, ref.dequantize())


def test_a_quantized_layer_is_read(peer):
    torch, quantizer = peer("torch"), peer("hqq.core.quantize").Quantizer
    x = torch.tensor(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32))
    packed, meta = quantizer.quantize(x, nbits=4, group_size=SIZE, axis=1, optimize=False, device="cpu")
    arrays = {"W_q": packed.numpy(), "scale": meta["scale"].numpy(), "zero": meta["zero"].numpy()}
    arrays |= {"shape": np.array(meta["shape"], np.int64)}
    arrays |= {name: np.array(meta[name], np.int32) for name in ("nbits", "group_size", "axis")}
    got = hqq.unpack(arrays)
    ref = quantizer.dequantize(packed, meta | {"compute_dtype": torch.float32}).numpy()
    np.testing.assert_array_equal(got.dequantize(), ref)
    for name, array in hqq.pack(dataclasses.replace(got)).items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
