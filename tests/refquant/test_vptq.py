"""VPTQ: a scalar spelling of the decoder, the packing of two indices in one word, and what files may get wrong."""

import numpy as np
import pytest

from refquant import vptq
from refquant.errors import QuantError, RangeError, ShapeError

ENTRY = {
    "in_features": 45,
    "out_features": 29,
    "vector_lens": [4, 8],
    "num_centroids": [32, 4096],
    "num_res_centroids": [-1, 256],
    "group_num": 2,
    "group_size": 20,
    "outlier_size": 5,
    "is_indice_packed": True,
    "bias": False,
    "indices_as_float": False,
}
PLAIN = {"vector_lens": [-1, 8], "num_centroids": [-1, 4096], "outlier_size": 0, "in_features": 40}


def packed(k: np.ndarray, r: np.ndarray | None, low: int, high: int) -> np.ndarray:
    """int32 words of indices (books, vectors, columns), bit after bit."""
    rows = []
    for row, other in zip(k.reshape(-1, k.shape[-1]), (k if r is None else r).reshape(-1, k.shape[-1])):
        number = 0
        for j in range(len(row)):
            number |= (int(row[j]) | (0 if r is None else int(other[j]) << low)) << (j * (low + high))
        words = -(-len(row) * (low + high) // 32)
        rows.append([number >> (32 * w) & 0xFFFFFFFF for w in range(words)])
    return np.array(rows, np.uint32).view(np.int32).reshape(*k.shape[:2], -1)


def layer(entry: dict) -> tuple[vptq.Settings, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Settings, the tensors of a file, and the indices in it."""
    s = vptq.Settings.from_config(entry)
    rng = np.random.default_rng(0)
    (v0, v), (n0, n), (_, nr) = s.vector_lens, s.num_centroids, s.num_res_centroids
    shape = (s.group_num, -(-s.out_features // v), s.group_size)
    found = {"k": rng.integers(0, n, shape), "perm": rng.permutation(s.in_features)}
    tensors = {
        "centroids.weight": rng.standard_normal((s.group_num, n * v)).astype(np.float16),
        "perm": found["perm"].astype(np.uint16).view(np.int16),
        "weight_scale": rng.standard_normal(s.in_features).astype(np.float16),
        "weight_bias": rng.standard_normal(s.in_features).astype(np.float16),
    }
    if nr > 0:
        found["r"] = rng.integers(0, nr, shape)
        tensors["res_centroids.weight"] = rng.standard_normal((s.group_num, nr * v)).astype(np.float16)
    if s.outliers:
        found["o"] = rng.integers(0, n0, (1, -(-s.out_features // v0), s.outliers))
        tensors["outlier_centroids.weight"] = rng.standard_normal((1, n0 * v0)).astype(np.float16)
        tensors["outlier_indices"] = found["o"].astype(np.uint16).view(np.int16)
    if s.is_indice_packed:
        bits = [int(count).bit_length() - 1 for count in (n, max(nr, 1))]
        tensors["indices"] = packed(found["k"], found.get("r"), *bits)
    else:
        tensors["indices"] = found["k"].astype(np.uint16).view(np.float16)
        if nr > 0:
            tensors["res_indices"] = found["r"].astype(np.uint16).view(np.int16)
    return s, tensors, found


def naive_weight(s: vptq.Settings, tensors: dict, found: dict, row: int, column: int) -> np.float32:
    """One weight, from the paper's words."""
    place = int(np.flatnonzero(found["perm"] == column)[0]) if "perm" in tensors else column
    if place < s.outliers:
        v = s.vector_lens[0]
        vector = found["o"][0, row // v, place]
        x = np.float32(tensors["outlier_centroids.weight"][0, vector * v + row % v])
    else:
        book, inside = divmod(place - s.outliers, s.group_size)
        v = s.vector_lens[1]
        x = np.float32(tensors["centroids.weight"][book, found["k"][book, row // v, inside] * v + row % v])
        if "r" in found:
            x += np.float32(tensors["res_centroids.weight"][book, found["r"][book, row // v, inside] * v + row % v])
    if "weight_scale" in tensors:
        x = x * np.float32(tensors["weight_scale"][column])
    return x + np.float32(tensors["weight_bias"][column]) if "weight_bias" in tensors else x


@pytest.mark.parametrize("change, dropped", [
    ({}, ()),
    ({"is_indice_packed": False}, ()),
    ({"num_res_centroids": [-1, -1]}, ("perm",)),
    ({"num_res_centroids": [-1, 65536], "num_centroids": [32, 65536]}, ("weight_bias",)),
    ({"num_res_centroids": [-1, 4096], "num_centroids": [32, 16]}, ()),
    (PLAIN, ("weight_scale", "weight_bias")),
])  # fmt: skip
def test_every_weight_is_that_of_the_scalar_spelling(change, dropped):
    s, tensors, found = layer({**ENTRY, **change})
    for name in dropped:
        del tensors[name]
    got = vptq.decode(s, tensors)
    assert (got.shape, got.dtype) == ((s.out_features, s.in_features), np.float32)
    ref = [[naive_weight(s, tensors, found, i, j) for j in range(s.in_features)] for i in range(s.out_features)]
    np.testing.assert_array_equal(got, np.array(ref))


@pytest.mark.parametrize("change, error, message", [
    ({"centroids.weight": None}, QuantError, "expected centroids.weight"),
    ({"indices": np.zeros((2, 4, 3), np.int32)}, ShapeError, r"indices.shape = \(2, 4, 3\), expected \(2, 4, 13\)"),
    ({"indices": np.zeros((2, 4, 13))}, QuantError, "float64, expected int32"),
    ({"outlier_indices": np.zeros((1, 8, 5), np.int64)}, QuantError, "int64"),
    ({"outlier_indices": np.full((1, 8, 5), 40, np.int16)}, RangeError, "weight = 40, expected 0..31"),
    ({"perm": np.zeros(45, np.int16)}, RangeError, "each of 0..44 once"),
    ({"weight_bias": np.zeros(44)}, ShapeError, "weight_bias"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(change, error, message):
    s, tensors, _ = layer(ENTRY)
    with pytest.raises(error, match=message):
        vptq.decode(s, {name: a for name, a in {**tensors, **change}.items() if a is not None})


@pytest.mark.parametrize("change, error, message", [
    ({"group_size": 21}, RangeError, "in_features = 45"),
    ({"group_size": -1}, RangeError, "positive sizes"),
    ({"num_centroids": [32, 1]}, RangeError, "at least 2"),
    ({"vector_lens": None}, QuantError, r"lacks \['vector_lens'\]"),
])  # fmt: skip
def test_settings_that_make_no_layer_are_refused(change, error, message):
    entry = {key: value for key, value in {**ENTRY, **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        vptq.Settings.from_config(entry)


def test_values_that_are_not_finite_decode_without_a_warning():
    s, tensors, _ = layer(ENTRY)
    endless = {name: np.full_like(tensors[name], np.inf) for name in ("weight_scale", "weight_bias")}
    assert not np.isfinite(vptq.decode(s, {**tensors, **endless})).any()
