"""ZeRO++: send weights and gradients between ranks in 8 and 4 bits, block by block.

    qwZ   all-gather: every rank holds a shard of the weights and wants all of them
          send Q(shard), 8 bits; receive and decode the others'              each rank gets the same array

    qgZ   reduce-scatter: every rank holds a gradient of all weights and wants the sum of its own chunk
          hop 1, within a node:  send Q(part) to each local rank, 4 bits; decode, sum over the node
          hop 2, between nodes:  send Q(sum) to each node; decode, sum over nodes

    ranks = nodes * local; rank r is (node r // local, local r % local), and chunk r of the result belongs to it.
    In hop 1 the local rank l of a node gets the chunks of all ranks (., l); in hop 2 rank (m, l) gets chunk (m, l) of
    every node.

Why two hops   a value is rounded twice and not once for every step of a ring, and between nodes only 1 / local is sent.
Shapes         shards and gradients float32 (n,), the same n for all ranks; n of gradients a multiple of ranks * block.
Formats        any scheme that quantize knows: symmetric blocks, as DeepSpeed has them: int8-b256 and int4-b256.
Arithmetic     float32; sums in order of rank, hop by hop: the same bytes wherever it runs.
Not here       hpZ, the secondary partition of the weights: it moves nothing through a format.
Source         Wang et al. 2023, arXiv:2306.10209, sec. 3.1 and 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refquant.errors import ShapeError
from refquant.inputs import as_float32
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme


@dataclass(slots=True)
class Traffic:
    """Bytes that left all ranks together, by where they went; what a rank keeps for itself does not count."""

    within_nodes: int = 0
    between_nodes: int = 0


def all_gather(shards: Sequence[np.ndarray], scheme: Scheme | str = "int8-b256") -> tuple[np.ndarray, int]:
    """qwZ: (the weights that every rank ends with, float32 (ranks * n,), bytes that each rank sends to each other).

    A rank decodes its own shard as well: all ranks hold equal weights.
    """
    shards = _vectors("zero_plus_plus.all_gather", shards)
    sent = [nearest(shard, scheme) for shard in shards]
    return np.concatenate([q.dequantize() for q in sent]), sent[0].nbytes


def reduce_scatter(
    gradients: Sequence[np.ndarray], local: int, scheme: Scheme | str = "int4-b256", traffic: Traffic | None = None
) -> list[np.ndarray]:
    """qgZ: for each rank the sum over all ranks of its chunk, float32 (n / ranks,). `traffic` is added to."""
    where = "zero_plus_plus.reduce_scatter"
    gradients = _vectors(where, gradients)
    ranks, n = len(gradients), len(gradients[0])
    if local < 1 or ranks % local or n % ranks:
        raise ShapeError(f"{where}: ranks, local, n = {ranks}, {local}, {n}, expected local to divide ranks, ranks n")
    nodes, traffic = ranks // local, Traffic() if traffic is None else traffic
    chunks = [g.reshape(nodes, local, n // ranks) for g in gradients]
    partial = np.zeros((nodes, local, nodes, n // ranks), np.float32)  # [node, local rank, of node's chunk]
    for node in range(nodes):
        for to in range(local):
            for source in range(local):
                q = nearest(np.ascontiguousarray(chunks[node * local + source][:, to]).reshape(-1), scheme)
                partial[node, to] += q.dequantize().reshape(nodes, -1)
                traffic.within_nodes += q.nbytes * (source != to)
    result = []
    for to in range(nodes):
        for rank in range(local):
            total = np.zeros(n // ranks, np.float32)
            for source in range(nodes):
                q = nearest(partial[source, rank, to], scheme)
                total += q.dequantize()
                traffic.between_nodes += q.nbytes * (source != to)
            result.append(total)
    return result


def _vectors(where: str, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    arrays = [as_float32(where, a) for a in arrays]
    if not arrays or any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
        raise ShapeError(f"{where}: shapes = {[a.shape for a in arrays]}, expected the same (n,) for every rank")
    return arrays
