"""Magnitude pruning: the smallest weights go. What every pruning method has to beat.

    score = |w|        least of each row (default), of the whole layer, or n of every m (sparsity.py)

Shapes   W (out, in); no calibration.
Joint    `quantize` prunes, then rounds to nearest; a pruned weight is exactly zero if zero is one of the levels.
Source   Han et al. 2015, arXiv:1506.02626.
"""

import numpy as np

from refquant.errors import RangeError
from refquant.gptq import weights
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme
from refquant.sparsity import least_of_layer, mask_of
from refquant.tensor import QuantizedTensor


def prune(
    W: np.ndarray, sparsity: float = 0.5, pattern: tuple[int, int] | None = None, scope: str = "row"
) -> np.ndarray:
    """W float32 with zeros. scope: "row" or "layer"; a pattern such as (2, 4) overrides both."""
    if scope not in ("row", "layer"):
        raise RangeError(f"magnitude.prune: scope = {scope!r}, expected 'row' or 'layer'")
    W = weights("magnitude.prune", W)
    by_layer = scope == "layer" and pattern is None
    mask = least_of_layer(np.abs(W), sparsity) if by_layer else mask_of(np.abs(W), sparsity, pattern)
    return np.where(mask, np.float32(0), W)


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: object = None,
    *,
    sparsity: float = 0.5,
    pattern: tuple[int, int] | None = None,
    scope: str = "row",
) -> QuantizedTensor:
    """Prune, then round to nearest; calibration is not looked at."""
    return nearest(prune(W, sparsity, pattern, scope), scheme)
