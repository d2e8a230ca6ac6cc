"""The encoders of the I-quants: ggml's bytes, ggml's refusals, and the searches against brute force."""

import json
from itertools import product
from pathlib import Path

import ggml_cases
import ggml_i_quants
import numpy as np
import pytest

from refquant.errors import NonFiniteError, RangeError, UnsupportedError
from refquant.gguf import formats, i_neighbours, i_quants, iq1_encoders, iq4_encoders
from refquant.gguf.formats import FORMATS, dequantize, quantize

DIGESTS = json.loads((Path(__file__).parent / "ggml_i_digests.json").read_text())
CASES = [(name, matrix) for name, matrices in DIGESTS.items() for matrix in matrices]
GRIDS = list(i_neighbours.RINGS)
ROW = 512

# Root mean square error on N(0, 1) with equal importances, a little above what is measured.
ERROR = {
    "IQ1_S": 0.49, "IQ1_M": 0.46, "IQ2_XXS": 0.35, "IQ2_XS": 0.3, "IQ2_S": 0.25, "IQ3_XXS": 0.185, "IQ3_S": 0.14,
    "IQ4_NL": 0.076, "IQ4_XS": 0.076,
}  # fmt: skip


def rows(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def importance(n=ROW):
    return np.random.default_rng(n).exponential(size=n).astype(np.float32)


def cases(name, matrix):
    """Weights (blocks, values) by kind, and their importances alike, or None."""
    v = ggml_cases.importances().get(matrix)
    for kind, x in ggml_i_quants.weights().items():
        blocks = x.reshape(-1, FORMATS[name].values)
        yield kind, blocks, None if v is None else np.tile(v, len(x)).reshape(blocks.shape)


def encode(name, x, v):
    fmt = FORMATS[name]
    return fmt.encode(x) if v is None else fmt.encode_weighted(x, v)


def aborted(name, matrix, kind, count):
    """Which of the blocks make ggml abort."""
    packed = bytes.fromhex(DIGESTS[name][matrix][kind].get("aborted", "00" * (count // 8)))
    return np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool)


@pytest.mark.parametrize("name, matrix", CASES)
def test_encoded_bytes_are_those_of_ggml(name, matrix):
    for kind, x, v in cases(name, matrix):
        lives = ~aborted(name, matrix, kind, len(x))
        got = encode(name, x[lives], None if v is None else v[lives])
        assert ggml_cases.digest(got) == DIGESTS[name][matrix][kind]["bytes"], kind


@pytest.mark.parametrize("name, matrix", CASES)
def test_blocks_on_which_ggml_aborts_are_refused(name, matrix):
    for kind, x, v in cases(name, matrix):
        for i in np.flatnonzero(aborted(name, matrix, kind, len(x)))[::50]:
            with pytest.raises(RangeError, match=r"expected weights whose (errors stay|scale is) within float32"):
                encode(name, x[i], None if v is None else v[i])


def test_the_table_of_digests_has_every_type_matrix_and_kind_of_weights():
    matrices, kinds = set(ggml_cases.importances()), set(ggml_i_quants.weights())
    assert set(DIGESTS) == {name for name in FORMATS if name.startswith("IQ")}
    for name, of in DIGESTS.items():
        assert set(of) == matrices | ({"none"} if FORMATS[name].encode is not None else set())
        assert all(set(digests) == kinds for digests in of.values())
    assert any("aborted" in digest for of in DIGESTS.values() for kinds in of.values() for digest in kinds.values())


@pytest.mark.parametrize("name", DIGESTS)
def test_quantize_passes_on_the_importance_of_each_column(name, monkeypatch):
    x, v = rows(3, 2 * ROW), importance(2 * ROW)
    fmt = FORMATS[name]
    ref = encode(name, x.reshape(-1, fmt.values), np.tile(v, 3).reshape(-1, fmt.values)).view(np.uint8).reshape(3, -1)
    np.testing.assert_array_equal(quantize(x, name, v), ref)
    np.testing.assert_array_equal(quantize(x[1], name, v), ref[1])
    monkeypatch.setattr(formats, "SLAB", 1)
    np.testing.assert_array_equal(quantize(x, name, v), ref)


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ1_S"])
def test_the_three_types_that_need_importance_say_so(name):
    with pytest.raises(UnsupportedError, match=f"imatrix = None, expected an importance matrix, which {name} needs"):
        quantize(rows(2, ROW), name)


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_encoders_refuse_what_is_not_finite(name, bad):
    n = FORMATS[name].values
    x = np.ones((2, n), np.float32)
    x[1, 3] = bad
    for v in (np.ones_like(x), None)[: 1 + (FORMATS[name].encode is not None)]:
        with pytest.raises(NonFiniteError, match=rf"{name}.encode: x.flat\[{n + 3}\] = {bad}"):
            encode(name, x, v)


@pytest.mark.parametrize("name", DIGESTS)
def test_encoders_take_blocks_of_any_shape(name):
    n = FORMATS[name].values
    x, v = rows(6, n), importance(n)
    flat = encode(name, x, v)
    for shape in ((), (1, 6), (2, 3), (0,), (2, 0)):
        count = int(np.prod(shape))
        got = encode(name, x[:count].reshape(*shape, n), v)
        assert got.shape == shape
        assert got.dtype == FORMATS[name].layout
        np.testing.assert_array_equal(got, flat[:count].reshape(shape))


@pytest.mark.parametrize("name", DIGESTS)
def test_zeros_decode_to_zeros(name):
    zeros = np.zeros(ROW, np.float32)
    np.testing.assert_array_equal(dequantize(quantize(zeros, name, np.ones_like(zeros)), name), 0)


@pytest.mark.parametrize("name", ERROR)
def test_the_error_is_what_the_bits_allow(name):
    x = rows(64, ROW)
    error = np.sqrt(np.mean((dequantize(quantize(x, name, np.ones(ROW)), name) - x) ** 2))
    assert 0.95 * ERROR[name] < error < ERROR[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_importance_moves_the_error_to_where_it_matters_less(name):
    x, v = rows(256, ROW), importance() ** 2
    plain, weighted = ((dequantize(quantize(x, name, m), name) - x) ** 2 for m in (np.ones(ROW), v))
    assert (v * weighted).mean() < 0.97 * (v * plain).mean()


@pytest.mark.parametrize("name", GRIDS)
def test_neighbours_are_the_points_at_the_least_distances_that_occur(name):
    table = i_neighbours.lattice(name)
    rng = np.random.default_rng(len(table.codes))
    for codes in rng.integers(0, table.top + 1, (100, table.width)):
        packed = int(table.pack(codes[:, None].astype(np.uint8))[0])
        distance = ((table.codes.astype(int) - codes) ** 2).sum(axis=1)
        if 0 in distance:
            assert table.point[packed] == distance.argmin()
            assert table.count[packed] == 0
        else:
            rings = sorted(set(distance.tolist()))[: i_neighbours.RINGS[name]]
            ref = [i for d in rings for i in np.flatnonzero(distance == d)]
            first = table.start[packed]
            assert table.point[packed] == -1
            assert table.neighbours[first : first + table.count[packed]].tolist() == ref


@pytest.mark.parametrize("name", GRIDS)
def test_the_cheapest_neighbour_is_that_of_the_least_cost(name):
    table = i_neighbours.lattice(name)
    rng = np.random.default_rng(table.width)
    packed = rng.choice(np.flatnonzero(table.count), 50)
    x, w = rng.random((2, 50, table.width), np.float32)
    scale = rng.random(50, np.float32)
    got = i_neighbours.cheapest(table, table.odd, packed, scale, np.arange(50), x, w)
    for j in range(50):
        near = table.neighbours[table.start[packed[j]] :][: table.count[packed[j]]]
        cost = (w[j] * (scale[j] * table.odd[near].astype(float) - x[j]) ** 2).sum(axis=1)
        assert got[j] == near[cost.argmin()]


def test_the_first_of_equally_cheap_neighbours_is_taken():
    table = i_neighbours.lattice("IQ2_XXS")
    packed = np.flatnonzero(table.count)[:20]
    nothing = np.zeros((20, 8), np.float32)
    got = i_neighbours.cheapest(table, table.odd, packed, np.ones(20, np.float32), np.arange(20), nothing, nothing)
    np.testing.assert_array_equal(got, table.neighbours[table.start[packed]])


def test_levels_of_the_decoder_are_about_a_constant_times_those_of_the_search():
    for name, times in {"IQ2_XXS": 8.3, "IQ2_XS": 8.3, "IQ2_S": 8.3, "IQ3_XXS": 4, "IQ3_S": 1}.items():
        ratio = i_quants.grid(name) / i_neighbours.lattice(name).odd
        assert np.abs(ratio / times - 1).max() <= (0 if name == "IQ3_S" else 0.04)


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ3_XXS"])
def test_an_odd_number_of_minuses_flips_the_weight_that_matters_least(name):
    x = np.abs(rows(1, 256)) + np.float32(0.5)
    v = np.ones_like(x)
    x[0, 5], v[0, 100] = -x[0, 5], 1e-6  # 100 is in another eight
    again = FORMATS[name].decode(encode(name, x, v))
    expected = np.ones(256)
    expected[5] = -1
    expected[np.abs(x[0, :8]).argmin()] *= -1
    np.testing.assert_array_equal(np.sign(again[0]), expected)
    x[0, 101] = -x[0, 101]
    again = FORMATS[name].decode(encode(name, x, v))
    assert again[0, 100] < 0 and again[0, 101] < 0


@pytest.mark.parametrize("name", ["IQ2_S", "IQ3_S"])
def test_eight_stored_signs_keep_every_sign(name):
    x = rows(4, 256)
    np.testing.assert_array_equal(np.sign(FORMATS[name].decode(encode(name, x, None))), np.sign(x))


@np.errstate(over="ignore")
def test_the_nearest_level_is_the_nearest_and_the_greater_one_of_two():
    levels = i_quants.LEVELS.astype(float)
    midpoints = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    near = [midpoints, np.nextafter(midpoints, np.float32(-999)), np.nextafter(midpoints, np.float32(999))]
    y = np.concatenate([*near, np.linspace(-200, 200, 9999, dtype=np.float32), [-1e6, 1e6]]).astype(np.float32)
    distance = np.abs(y[:, None].astype(float) - levels)
    last = 15 - distance[:, ::-1].argmin(axis=1)
    np.testing.assert_array_equal(iq4_encoders._nearest(y), last)
    assert iq4_encoders._nearest(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38], np.float32)).tolist() == [
        15,
        15,
        0,
        15,
        0,
    ]


@np.errstate(over="ignore")
@pytest.mark.parametrize("name, runs", [("IQ1_S", 4), ("IQ1_M", 2)])
def test_no_codes_under_one_delta_beat_the_best_split(name, runs):
    signs = {"IQ1_S": iq1_encoders.IQ1_S_SIGNS, "IQ1_M": iq1_encoders.IQ1_M_SIGNS}[name]
    rng = np.random.default_rng(runs)
    x, w = rng.standard_normal((2, 20, runs, 8), np.float32)
    w = np.where(np.arange(8) < 6 // runs + 1, w * w, np.float32(0))  # few enough weights that count
    s, codes, minus, found = iq1_encoders._split(x, w, signs)
    assert found.all()
    some = np.flatnonzero(w[0].reshape(-1) > 0)
    every = np.array(list(product((-1, 0, 1), repeat=len(some))))
    for g in range(20):
        delta = np.where(minus[g], -0.125, 0.125).repeat(8)
        v = codes[g].reshape(-1).astype(int) - 1 + delta
        xs, ws = x[g].reshape(-1)[some].astype(float), w[g].reshape(-1)[some].astype(float)
        got = (ws * (xs - s[g] * v[some]) ** 2).sum()
        for deltas in (signs[0], signs[-1]):  # of all runs the same
            levels = every + np.where(deltas, -0.125, 0.125).repeat(8)[some]
            gain = (ws * levels * xs).sum(axis=1) ** 2 / (ws * levels**2).sum(axis=1)
            assert got <= (ws * xs**2).sum() - gain.max() + 1e-5


@np.errstate(over="ignore")
def test_equal_weights_keep_their_order_in_the_split():
    x = np.zeros((1, 4, 8), np.float32)
    x[0, :, :2] = 1
    w = np.ones_like(x)
    _, codes, _, _ = iq1_encoders._split(np.where(np.arange(8) % 2, -x, x), w, iq1_encoders.IQ1_S_SIGNS)
    assert codes[0, 0].tolist() == [2, 0, 1, 1, 1, 1, 1, 1]


def test_a_group_of_zeros_moves_what_follows_it_in_iq3_s_as_it_does_in_ggml():
    x = rows(1, 256)
    x[:, 64:96] = 0
    b = encode("IQ3_S", x, None)[0]
    ref = encode("IQ3_S", np.concatenate([x[:, :64], x[:, 96:], x[:, 64:96]], axis=1), None)[0]
    assert b["qs"].tolist() == ref["qs"].tolist()
    assert b["signs"].tolist() == ref["signs"].tolist()
    assert b["qh"].tolist() == [*ref["qh"][:2].tolist(), 0, *ref["qh"][2:7].tolist()]
    again, expected = (FORMATS["IQ3_S"].decode(a) for a in (b, ref))
    np.testing.assert_array_equal(again[:64], expected[:64])
    assert np.abs(again[96:] - x[0, 96:]).max() > 1  # ggml's defect: other weights
