"""optimum-quanto: its state dicts read and written. Its decoder, which would compile an extension, is not run."""

import numpy as np
import pytest

from refquant.layouts import quanto as ours

pytestmark = pytest.mark.filterwarnings("ignore")


def arrays_of(q) -> dict[str, np.ndarray]:
    found = {}
    q.save_to_state_dict(found, "weight.", False)
    return {name.replace("._data._data", "._data"): t.numpy() for name, t in found.items()}


@pytest.mark.parametrize("kind, bits", [("qint4", 4), ("qint2", 2)])
@pytest.mark.parametrize("shape, group_size", [((16, 128), 64), ((7, 96), 32)])
def test_groups_round_trip(peer, kind, bits, shape, group_size):
    torch, quanto = peer("torch"), peer("optimum.quanto")
    x = torch.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    qtype = getattr(quanto, kind)
    scale, shift = quanto.MaxOptimizer()(x, qtype, 0, group_size)
    q = quanto.WeightQBitsTensor.quantize(x, qtype, 0, group_size, scale, shift, optimized=False)
    arrays = arrays_of(q)
    got = ours.unpack(arrays, shape=shape)
    assert got.bits == bits
    codes = torch.ops.quanto.quantize_affine(x, bits, 0, group_size, scale, shift)  # a row for each group, not packed
    np.testing.assert_array_equal(got.codes, codes.reshape(shape).numpy())
    ref = (torch.tensor(arrays[ours.SCALE]) * codes - torch.tensor(arrays[ours.SHIFT])).reshape(shape)
    np.testing.assert_array_equal(got.dequantize(), ref.numpy())
    again = ours.pack(got)
    assert sorted(again) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_bytes_round_trip(peer):
    torch, quanto = peer("torch"), peer("optimum.quanto")
    x = torch.tensor(np.random.default_rng(0).standard_normal((16, 128)).astype(np.float32))
    scale = x.abs().amax(1, keepdim=True) / 127
    q = quanto.WeightQBytesTensor.quantize(x, quanto.qint8, 0, scale, optimized=False)
    arrays = arrays_of(q)
    got = ours.unpack(arrays)
    np.testing.assert_array_equal(got.dequantize(), q.dequantize().numpy())
    for name, array in ours.pack(got).items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
