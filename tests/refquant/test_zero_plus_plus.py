"""ZeRO++: collectives in few bits against the exact ones, with the bound that two roundings give, and their traffic."""

import numpy as np
import pytest

import refquant
from refquant import zero_plus_plus
from refquant.errors import NonFiniteError, ShapeError
from refquant.zero_plus_plus import Traffic, all_gather, reduce_scatter


def vectors(ranks: int, n: int) -> list[np.ndarray]:
    return list(np.random.default_rng([ranks, n]).standard_normal((ranks, n)).astype(np.float32))


def test_every_rank_gathers_what_each_of_them_decodes():
    shards = vectors(4, 512)
    got, sent = all_gather(shards)
    ref = np.concatenate([refquant.quantize(s, "int8-b256").dequantize() for s in shards])
    np.testing.assert_array_equal(got, ref)
    assert sent == 512 + 2 * 4
    assert np.abs(got - np.concatenate(shards)).max() < 4 / 127


@pytest.mark.parametrize("nodes, local", [(1, 4), (2, 2), (4, 1), (2, 3)])
def test_without_rounding_each_rank_gets_the_sum_of_its_own_chunk(nodes, local):
    ranks = nodes * local
    gradients = vectors(ranks, ranks * 64)
    got = reduce_scatter(gradients, local, "F32")
    ref = np.sum(gradients, axis=0, dtype=np.float64).reshape(ranks, 64)
    np.testing.assert_allclose(np.stack(got), ref, atol=1e-5)


def test_the_error_is_bounded_by_one_rounding_a_hop():
    gradients = vectors(4, 4 * 256)
    got = np.concatenate(reduce_scatter(gradients, 2))
    exact = np.sum(gradients, axis=0)
    step = np.max(np.abs(gradients)) / 7.5  # of int4, the range of one gradient
    first_hop = 4 * step / 2
    second_hop = 2 * (2 * np.max(np.abs(gradients)) + step) / 7.5 / 2
    error = np.abs(got - exact)
    assert 0 < error.max() <= first_hop + second_hop
    assert np.sqrt(np.mean(error**2)) < 0.25 * np.sqrt(np.mean(exact**2))


def test_between_nodes_less_is_sent_than_within():
    gradients, traffic = vectors(8, 8 * 256), Traffic()
    reduce_scatter(gradients, 4, traffic=traffic)
    chunk = 128 + 4  # bytes of 256 values: 4 bits each and a scale
    assert traffic.within_nodes == 2 * 4 * 3 * 2 * chunk
    assert traffic.between_nodes == 8 * chunk
    everything = Traffic()
    reduce_scatter(gradients, 1, traffic=everything)
    assert everything.between_nodes == 8 * 7 * chunk


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: reduce_scatter(vectors(4, 256), 3), ShapeError),
        (lambda: reduce_scatter(vectors(4, 250), 2), ShapeError),
        (lambda: reduce_scatter([], 1), ShapeError),
        (lambda: all_gather([np.zeros(256, np.float32), np.zeros(512, np.float32)]), ShapeError),
        (lambda: all_gather([np.full(256, np.nan, np.float32)]), NonFiniteError),
        (lambda: zero_plus_plus.all_gather([np.zeros((2, 256), np.float32)]), ShapeError),
    ],
)
def test_refusals(call, error):
    with pytest.raises(error):
        call()
