"""naive_levels as a witness of tables."""

import naive_levels
import numpy as np

from conformance.protocol import Unsupported


def run(member, params, inputs):
    """table."""
    try:
        return {"levels": np.array(_table(member, params, inputs), np.float32)}
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as why:
        raise Unsupported(f"refusals: {why}") from why


def _table(member, params, inputs):
    if member == "dynamic_map":
        return naive_levels.dynamic_map(params["bits"], params["exponent_bits"], params["signed"])
    x = inputs["x"].ravel().tolist()
    weights = inputs["weights"].ravel().tolist() if "weights" in inputs else None
    if member == "kmeans-lloyd":
        return naive_levels.lloyd(x, params["k"], weights, params.get("iterations", 1000))
    if len(x) > 100:
        raise Unsupported("as many values as fractions take minutes for")
    return naive_levels.optimal(x, params["k"], weights)
