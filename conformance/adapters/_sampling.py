"""The sampler of README.md in float64: what refquant answers, since sampling is no part of it.

    penalize      l / r where l > 0, l * r elsewhere, for each id of the history
    sort          descending by logit, ascending by id
    top-k         the first k                                                   0 keeps all
    top-p         the shortest beginning whose probabilities reach p            1 keeps all
    min-p         those at least p times as likely as the likeliest             0 keeps all
    temperature   logits / t, then softmax                                      0: the first alone
    draw          the first whose cumulated probability exceeds u

What stays is normalized again by every softmax that follows. Outputs are in ascending order of id.
"""

from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays
from refquant.errors import NonFiniteError


def candidates(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """logits, history -> ids and probabilities of what may be drawn."""
    ids, probabilities = _chain(params, inputs)
    order = np.argsort(ids)
    return {"ids": ids[order].astype(np.int64), "probabilities": probabilities[order].astype(np.float32)}


def draw(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """logits, history, uniform -> id."""
    ids, probabilities = _chain(params, inputs)
    place = np.searchsorted(np.cumsum(probabilities), float(inputs["uniform"]), side="right")
    return {"id": np.int64(ids[min(place, len(ids) - 1)])}


def _chain(params: Mapping[str, object], inputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    logits = inputs["logits"].astype(np.float64)
    if np.isnan(logits).any() or (logits == np.inf).any() or not np.isfinite(logits).any():
        raise NonFiniteError("sampler: logits hold NaN, infinity or nothing finite, expected numbers or -infinity")
    seen, repeat = np.unique(inputs["history"]), params["repeat_penalty"]
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / repeat, logits[seen] * repeat)
    ids = np.lexsort((np.arange(len(logits)), -logits))
    if params["temperature"] <= 0:
        return ids[:1], np.ones(1)
    ids = ids[: params["top_k"] or None]
    if params["top_p"] < 1:
        ids = ids[: int(np.searchsorted(np.cumsum(_softmax(logits[ids])), params["top_p"])) + 1]
    share = np.exp(logits[ids] - logits[ids[0]])
    ids = ids[share >= params["min_p"]]
    return ids, _softmax((logits[ids] - logits[ids[0]]) / params["temperature"])


def _softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max())
    return weight / weight.sum()
