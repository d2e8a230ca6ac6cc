"""bitsandbytes: its state dicts read and written byte for byte, its values decoded bit for bit, on the CPU."""

import numpy as np
import pytest

from refquant.layouts import bitsandbytes as ours

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("nf4", "fp4")
INPUTS = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "one hot": lambda rng, shape: np.eye(*shape) * 3,
    "constant": lambda rng, shape: np.full(shape, -0.7),
    "tiny": lambda rng, shape: rng.standard_normal(shape) * 1e-30,
    "powers of two": lambda rng, shape: 2.0 ** rng.integers(-8, 8, shape),
}


def arrays_of(packed, state) -> dict[str, np.ndarray]:
    tensors = {"weight": packed} | {f"weight.{name}": t for name, t in state.as_dict(packed=True).items()}
    return {name: t.numpy() for name, t in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape, blocksize", [((64, 192), 64), ((33, 37), 64), ((8, 4096), 128)])
@pytest.mark.parametrize("name", INPUTS)
def test_state_dicts_round_trip_and_decode_to_the_same_bits(peer, kind, nested, shape, blocksize, name):
    torch, functional = peer("torch"), peer("bitsandbytes.functional")
    x = torch.tensor(INPUTS[name](np.random.default_rng(0), shape).astype(np.float32))
    packed, state = functional.quantize_4bit(x, blocksize=blocksize, quant_type=kind, compress_statistics=nested)
    arrays = arrays_of(packed, state)
    got = ours.unpack(arrays)
    assert (got.shape, got.blocksize, got.quant_type, got.dtype) == (shape, blocksize, kind, "float32")
    again = ours.pack(got)
    assert list(again) == list(arrays)
    for key in arrays:
        assert again[key].dtype == arrays[key].dtype
        np.testing.assert_array_equal(again[key], arrays[key], err_msg=key)
    if shape[1] % blocksize == 0:  # odd rows are decoded by code that it compiles first, for a minute
        ref = functional.dequantize_4bit(packed, state, quant_type=kind).numpy()
        np.testing.assert_array_equal(got.dequantize(), ref)


@pytest.mark.parametrize("kind", KINDS)
def test_its_cpu_kernel_counts_whole_blocks_a_row(peer, kind):
    torch, functional = peer("torch"), peer("bitsandbytes.functional")
    x = torch.tensor(np.random.default_rng(0).standard_normal((16, 96)).astype(np.float32))
    packed, state = functional.quantize_4bit(x, blocksize=64, quant_type=kind)
    got = ours.unpack(arrays_of(packed, state))
    row, column = np.indices((16, 96))
    block = row * (96 // 64) + column // 64  # blocks run on over the rows: it is (row * 96 + column) // 64
    theirs = got.quant_map[got.codes.reshape(16, 96)] * got.absmax[block]
    ref = functional.dequantize_4bit(packed, state, quant_type=kind).numpy()
    np.testing.assert_array_equal(ref, theirs)
    assert np.abs(ref - x.numpy()).max() > 2 * np.abs(got.dequantize() - x.numpy()).max()


@pytest.mark.parametrize("kind", KINDS)
def test_bitsandbytes_decodes_codes_that_we_packed(peer, kind):
    torch, functional = peer("torch"), peer("bitsandbytes.functional")
    rng = np.random.default_rng(1)
    table = functional.get_4bit_type(kind, device="cpu").numpy()
    absmax = rng.uniform(0.5, 2, 48).astype(np.float32)
    ref = ours.FourBit(rng.integers(0, 16, 3072, dtype=np.uint8), absmax, table, kind, 64, (16, 192))
    tensors = {name: torch.tensor(np.array(array)) for name, array in ours.pack(ref).items()}
    packed = tensors.pop("weight")
    state = functional.QuantState.from_dict({name[len("weight.") :]: t for name, t in tensors.items()}, "cpu")
    got = functional.dequantize_4bit(packed, state, quant_type=kind).numpy()
    np.testing.assert_array_equal(got, ref.dequantize())


def test_int8_rows(peer):
    torch, functional = peer("torch"), peer("bitsandbytes.functional")
    x = torch.tensor(np.random.default_rng(2).standard_normal((32, 96)).astype(np.float16))
    codes, absmax, _ = functional.int8_vectorwise_quant(x)
    got = ours.unpack_int8({"weight": codes.numpy(), "SCB": absmax.numpy(), "weight_format": np.array(0, np.uint8)})
    ref = functional.int8_vectorwise_dequant(codes, absmax).numpy()
    np.testing.assert_array_equal(got.dequantize(), ref)
