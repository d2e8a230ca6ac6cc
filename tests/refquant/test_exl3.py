"""EXL3: the layout in Python integers, checksums of what ExLlamaV3's own kernel decoded, and the way back to W."""

import struct
import zlib

import numpy as np
import pytest

from refquant import exl3, hadamard
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError

# CRC-32 of the float16 (in, out) that the kernel `reconstruct` of exllamav3 1.6.5 wrote on an H200 for `random_tiles`,
# which were drawn in this order.
KERNEL = {
    (1, "3inst"): 2580211351, (1, "mcg"): 182821175, (1, "mul1"): 2452011769,
    (2, "3inst"): 280474160, (2, "mcg"): 1391588198, (2, "mul1"): 783525875,
    (3, "3inst"): 504272241, (3, "mcg"): 1341424642, (3, "mul1"): 2144483746,
    (4, "3inst"): 4285513719, (4, "mcg"): 176566711, (4, "mul1"): 1267197297,
    (5, "3inst"): 515747616, (5, "mcg"): 563698645, (5, "mul1"): 2990046889,
    (6, "3inst"): 4091829617, (6, "mcg"): 1401550116, (6, "mul1"): 415799995,
    (7, "3inst"): 2732167391, (7, "mcg"): 2648661247, (7, "mul1"): 1694660481,
    (8, "3inst"): 2134604976, (8, "mcg"): 2802606614, (8, "mul1"): 1404327241,
    (1.5, "mul1"): 1917408969, (2.5, "mul1"): 3666748280, (3.5, "mul1"): 882304648,
}  # fmt: skip


def random_tiles(rng: np.random.Generator, k: float) -> np.ndarray:
    tiles = rng.integers(0, 65536, (16, 24, int(16 * k))).astype(np.uint16)
    rng.standard_normal(256 + 384)  # the kernel's scales were drawn here
    return tiles.view(np.int16)


def float16(bits: int) -> float:
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def naive_value(state: int, function: str) -> float:
    """One weight, from the comments of codebook.cuh."""
    if function == "mul1":
        total = sum((state * 0x83DCD12D % 2**32).to_bytes(4, "little")) + 1024
        return float(np.float16(total * float16(0x1EEE) + float16(0xC931)))
    y = (state * 0xCBAC1FED if function == "mcg" else 89226354 * state + 64248484) % 2**32
    z = (y & 0x8FFF8FFF) ^ 0x3B603B60
    return float(np.float16(float16(z >> 16) + float16(z & 0xFFFF)))


def naive_tile(words: list[int], k: float, function: str) -> dict[tuple[int, int], float]:
    """{(row, column): weight} of one tile, a bit at a time."""
    swapped = [words[i ^ 1] for i in range(len(words))]
    stream = "".join(f"{w:016b}" for w in swapped)
    tile, end = {}, 0
    for t in range(256):
        end += int(k) + (k != int(k) and t % 2)
        state = int("".join(stream[(end - 16 + i) % len(stream)] for i in range(16)), 2)
        lane, i = t // 8, t % 8
        row = lane % 4 * 2 + (0, 1, 8, 9)[i % 4]
        tile[row, lane // 4 + (8 if i >= 4 else 0)] = naive_value(state, function)
    return tile


@pytest.mark.parametrize("k, function", [(1, "3inst"), (3, "mcg"), (4, "3inst"), (5, "mul1"), (2.5, "mul1")])
def test_tiles_are_those_of_plain_python(k, function):
    packed = np.random.default_rng(7).integers(0, 65536, (2, 3, int(16 * k))).astype(np.uint16)
    got = exl3.decode_tiles(packed.view(np.int16), function)
    assert (got.shape, got.dtype) == ((32, 48), np.float32)
    for at in ((0, 0), (1, 2), (0, 1)):
        ref = naive_tile([int(w) for w in packed[at]], k, function)
        assert len(ref) == 256
        for (row, column), value in ref.items():
            assert got[16 * at[0] + row, 16 * at[1] + column] == value


def test_tiles_are_those_of_the_authors_kernel():
    rng = np.random.default_rng(4)
    got = {
        (k, function): zlib.crc32(exl3.decode_tiles(random_tiles(rng, k), function).astype("<f2").tobytes())
        for k, function in KERNEL
    }
    assert got == KERNEL


def test_every_place_of_a_tile_is_filled_once():
    assert np.sort(exl3.places()).tolist() == list(range(256))


@pytest.mark.parametrize("function, deviation", [("3inst", 1.24), ("mcg", 1.24), ("mul1", 1.0)])
def test_the_functions_are_nearly_gaussian_over_all_states(function, deviation):
    values = exl3.FUNCTIONS[function](np.arange(1 << 16))
    assert abs(values.mean()) < 0.02
    assert values.std() == pytest.approx(deviation, abs=0.02)


def layer(k: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(k)
    return {
        "trellis": rng.integers(-32768, 32768, (8, 16, 16 * k)).astype(np.int16),
        "suh": rng.standard_normal(128).astype(np.float16),
        "svh": rng.standard_normal(256).astype(np.float16),
    }


def test_a_layer_is_its_tiles_between_two_transforms_and_two_scales():
    tensors = layer()
    H = hadamard.matrix(128) / 128**0.5
    inner = exl3.decode_tiles(tensors["trellis"]).astype(np.float64)
    left, right = H, np.kron(np.eye(2), H)
    ref = tensors["suh"][:, None] * (left @ inner @ right) * tensors["svh"]
    got = exl3.decode(tensors)
    assert (got.shape, got.dtype) == ((256, 128), np.float32)
    np.testing.assert_allclose(got, ref.T, atol=1e-4)


def test_signs_alone_are_scales_of_one():
    tensors = layer()
    signs = {"su": np.random.default_rng(1).integers(0, 2, 128), "sv": np.random.default_rng(2).integers(0, 2, 256)}
    words = {
        name: np.array([sum(int(b) << i for i, b in enumerate(bits)) for bits in s.reshape(-1, 16)], np.uint16)
        for name, s in signs.items()
    }
    older = {"trellis": tensors["trellis"], **{name: w.view(np.int16) for name, w in words.items()}}
    newer = {"trellis": tensors["trellis"], **{f"{name}h": (1 - 2 * s).astype(np.float16) for name, s in signs.items()}}
    np.testing.assert_array_equal(exl3.decode(older), exl3.decode(newer))


def test_the_codebook_is_named_by_a_tensor():
    tensors = layer()
    plain, marked = exl3.decode(tensors), exl3.decode({**tensors, "mcg": np.array(0, np.int32)})
    assert exl3.codebook(tensors) == "3inst"
    assert np.mean(plain != marked) > 0.9


@pytest.mark.parametrize("change, error, message", [
    ({"trellis": None}, QuantError, "expected trellis"),
    ({"suh": None}, QuantError, "expected suh or su"),
    ({"suh": np.ones(64, np.float16)}, ShapeError, r"float16 \(64,\), expected float16 \(128,\)"),
    ({"svh": np.ones(256, np.float32)}, ShapeError, "float32"),
    ({"trellis": np.zeros((8, 16, 32), np.int32)}, ShapeError, "expected int16"),
    ({"trellis": np.zeros((8, 8, 0), np.int16)}, ShapeError, "expected int16"),
    ({"trellis": np.zeros((8, 16, 33), np.int16)}, RangeError, "bits a weight = 2.0625"),
    ({"trellis": np.zeros((8, 16, 40), np.int16)}, RangeError, "bits a weight = 2.5 with 3inst"),
    ({"trellis": np.zeros((8, 16, 9 * 16), np.int16)}, RangeError, "bits a weight = 9"),
    ({"trellis": np.zeros((7, 16, 32), np.int16)}, ShapeError, "multiples of 128"),
    ({"mcg": np.array(0), "mul1": np.array(0)}, SchemeError, "at most one"),
])  # fmt: skip
def test_refusals(change, error, message):
    tensors = {name: a for name, a in {**layer(), **change}.items() if a is not None}
    with pytest.raises(error, match=message):
        exl3.decode(tensors)


def test_an_unknown_function_is_refused():
    with pytest.raises(SchemeError, match="'hyb'"):
        exl3.decode_tiles(layer()["trellis"], "hyb")


def test_scales_that_are_not_finite_decode_without_a_warning():
    tensors = layer()
    assert not np.isfinite(exl3.decode({**tensors, "suh": np.full(128, np.inf, np.float16)})).all()
