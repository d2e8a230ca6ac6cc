"""AQLM, E8P and trellis codes: scalar spellings of the published decoders, and the lattices they promise."""

import functools
import struct

import numpy as np
import pytest

from refquant import aqlm, quip_sharp, trellis
from refquant.errors import QuantError, RangeError, ShapeError


@pytest.mark.parametrize("M, bits, dtype", [(1, 16, np.int16), (2, 8, np.int8), (3, 4, np.int8)])
def test_aqlm_adds_one_vector_of_each_codebook(M, bits, dtype):
    rng = np.random.default_rng(M)
    books = rng.standard_normal((M, 1 << bits, 2, 8)).astype(np.float16)
    k = rng.integers(0, 1 << bits, (3, 4, M))
    codes = np.where(k >= 1 << (bits - 1), k - (1 << bits), k).astype(dtype)
    scales = rng.random((3, 1, 1, 1)).astype(np.float16)
    got = aqlm.decode(codes, books, scales)
    assert got.shape == (6, 32)
    for row, column in [(0, 0), (5, 31), (2, 17), (3, 8)]:
        total = np.float32(0)
        for m in range(M):
            total += np.float32(books[m, k[row // 2, column // 8, m], row % 2, column % 8])
        assert got[row, column] == total * np.float32(scales[row // 2, 0, 0, 0])


def test_every_code_of_e8p_is_another_point_of_e8_plus_a_quarter():
    points = quip_sharp.table()
    assert points.shape == (65536, 8)
    assert len(np.unique(points, axis=0)) == 65536
    plus, minus = (np.bitwise_count(np.arange(65536) & 255) % 2 == parity for parity in (0, 1))
    for mask, shift in ((plus, 0.25), (minus, -0.25)):
        halves = points[mask] - shift
        assert (halves % 1 == 0.5).all()
        assert (halves.sum(axis=1) % 2 == 0).all()
        norms = np.sum(halves**2, axis=1)
        assert norms.max() == 12
        assert np.sum(norms <= 10) == 227 * 128


def naive_e8p(code: int) -> list[float]:
    """One point, as the authors' loop over nibbles spells it."""
    signs, parity = code & 255, bin(code & 255).count("1") % 2
    signs ^= parity
    pattern = sorted_patterns()[code >> 8]
    reordered = [pattern[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    if sum(reordered) % 2:
        reordered[7] = -reordered[7]
    values = []
    for place in (0, 4, 1, 5, 2, 6, 3, 7):
        x = -reordered[place] if signs >> place & 1 else reordered[place]
        values.append(x - 0.25 if parity else x + 0.25)
    return values


@functools.cache
def sorted_patterns() -> list[list[float]]:
    short = []
    for number in range(3**8):
        digits = [number // 3**place % 3 for place in range(7, -1, -1)]
        pattern = [d + 0.5 for d in digits]
        if sum(x * x for x in pattern) <= 10:
            short.append(pattern)
    return short + [[int(d) / 2 for d in word] for word in quip_sharp.NORM12.split()]


def test_e8p_is_the_published_loop():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.integers(0, 65536, 20), [0, 255, 65535, 227 << 8, (226 << 8) + 1]]).astype(np.uint16)
    np.testing.assert_array_equal(quip_sharp.decode(codes), np.concatenate([naive_e8p(int(c)) for c in codes]))


def test_e8p_words_unpack_to_the_codes_that_were_packed():
    rows, columns = 32, 16  # codes: 128 weights a row
    codes = np.random.default_rng(1).integers(0, 65536, (rows, columns)).astype(np.uint16)
    packed = np.zeros((rows // 16, columns // 8, 8, 4), np.uint64)
    for row in range(0, rows, 2):
        for column in range(0, columns, 2):
            word = 0
            for i in range(4):
                code = int(codes[row + i % 2, column + i // 2])
                word |= (code >> 8) << (8 * i)
                for j in range(8):
                    word |= (code >> j & 1) << (32 + 4 * j + i)
            packed[row // 16, column // 8, row % 16 // 2, column % 8 // 2] = word
    got = quip_sharp.unpack(packed.view(np.int64).reshape(rows, columns // 4))
    np.testing.assert_array_equal(got, codes)


def float16(bits: int) -> float:
    return struct.unpack("<e", struct.pack("<H", bits))[0]


@pytest.mark.parametrize("state", [0, 1, 2, 12345, 40000, 65535])
def test_the_functions_of_the_trellis_in_python_integers(state):
    y = (34038481 * state + 76625530) % 2**32
    assert trellis.one_mad(np.array([state]))[0] == np.float32(sum(y.to_bytes(4, "little")) - 510) / np.float32(
        147.800537109375
    )
    z = ((89226354 * state + 64248484) % 2**32 & 0x8FFF8FFF) ^ 996162400
    ref = np.float16(float16(z >> 16) + float16(z & 0xFFFF))
    assert trellis.three_inst(np.array([state]))[0] == np.float32(ref)


def test_the_functions_are_nearly_gaussian_over_all_states():
    every = np.arange(1 << 16)
    for function, deviation in ((trellis.one_mad, 1.0), (trellis.three_inst, 1.24)):
        values = function(every)
        assert abs(values.mean()) < 0.02
        assert values.std() == pytest.approx(deviation, abs=0.02)
        assert np.mean(np.abs(values) < values.std()) == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 8])
def test_states_slide_over_the_stream_and_bite_their_tail(step):
    words = np.random.default_rng(step).integers(0, 65536, (2, 48)).astype(np.uint16)
    got = trellis.states(words, step)
    for stream in range(2):
        text = "".join(f"{w:016b}" for w in words[stream])
        ref = [int((text + text)[at : at + 16], 2) for at in range(0, len(text), step)]
        assert got[stream].tolist() == ref


def test_tiles_are_put_in_their_places():
    words = np.random.default_rng(5).integers(0, 65536, (6, 32)).astype(np.uint16)
    got = trellis.decode(words, (32, 48), 2)
    values = trellis.three_inst(trellis.states(words, 2))
    for row, column in [(0, 0), (15, 47), (16, 0), (31, 20)]:
        tile = row // 16 * 3 + column // 16
        assert got[row, column] == values[tile, row % 16 * 16 + column % 16]


def test_the_hybrid_code_looks_two_weights_up():
    table = np.random.default_rng(6).standard_normal((512, 2)).astype(np.float16)
    for state in (0, 7, 300, 65535):
        y = state * (state + 1)
        first, second = (float(v) for v in table[(y >> 6) & 511])
        got = trellis.hybrid(np.array(state), table)
        assert got.tolist() == [-first if y >> 15 & 1 else first, second]
    words = np.zeros((1, 32), np.uint16)
    assert trellis.decode(words, (16, 16), 2, "hyb", table)[0, :2].tolist() == table[0].astype(np.float32).tolist()


@pytest.mark.parametrize(
    "call, error",
    [
        (
            lambda: aqlm.decode(np.zeros((2, 2, 1), np.int8), np.zeros((2, 256, 1, 8)), np.ones((2, 1, 1, 1))),
            ShapeError,
        ),
        (lambda: aqlm.decode(np.zeros((2, 2, 1), np.int8), np.zeros((1, 256, 1, 8)), np.ones(2)), ShapeError),
        (lambda: aqlm.indices(np.array([16]), 16), RangeError),
        (lambda: aqlm.indices(np.array([1]), 12), RangeError),
        (lambda: aqlm.indices(np.array([1.0]), 16), QuantError),
        (lambda: quip_sharp.decode(np.zeros(4, np.int64)), QuantError),
        (lambda: quip_sharp.unpack(np.zeros((8, 2), np.int64)), ShapeError),
        (lambda: trellis.states(np.zeros((1, 2), np.int16), 2), QuantError),
        (lambda: trellis.states(np.zeros((1, 2), np.uint16), 5), RangeError),
        (lambda: trellis.decode(np.zeros((1, 31), np.uint16), (16, 16), 2), ShapeError),
        (lambda: trellis.decode(np.zeros((1, 32), np.uint16), (16, 16), 2, "hyb"), RangeError),
        (lambda: trellis.hybrid(np.zeros(1, np.int64), np.zeros((3, 2))), ShapeError),
    ],
)
def test_refusals(call, error):
    with pytest.raises(error):
        call()
