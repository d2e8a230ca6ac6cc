"""The order in which columns are quantized, and what it does to groups.

    natural        0, 1, 2, ...
    activation     diag(H) descending: the columns that matter most are rounded while most others can still make up
                   for it. A group is then g columns that are neighbours in this order, g_idx says which column is in
                   which, unless groups are static.
    group-aware    groups by their largest diag(H) descending, and the columns of a group among themselves: nearly the
                   gain of `activation`, while a group keeps its columns and a file needs no g_idx.

Ties       the lower column first. torch.argsort, which the authors use, is not stable and leaves this open.
Returned   order (in,) intp: order[position] = column.
Source     IST-DASLab gptq (--act-order); Gafni et al. 2025, arXiv:2505.14638 (GAR), as in gptqmodel's gar.py.
"""

import numpy as np

from refquant.errors import RangeError

ORDERS = ("natural", "activation", "group-aware")


def column_order(name: str, diagonal: np.ndarray, group_size: int) -> np.ndarray:
    """The permutation for a Hessian's diagonal (in,); group_size divides in. Raises RangeError for an unknown name."""
    if name == "natural":
        return np.arange(len(diagonal))
    if name == "activation":
        return _descending(diagonal)
    if name == "group-aware":
        groups = diagonal.reshape(-1, group_size)
        within = np.argsort(-groups, axis=1, kind="stable")
        first = np.arange(len(groups))[:, None] * group_size
        return (first + within)[_descending(groups.max(axis=1))].reshape(-1)
    raise RangeError(f"column_order: order = {name!r}, expected one of {list(ORDERS)}")


def _descending(values: np.ndarray) -> np.ndarray:
    return np.argsort(-values, kind="stable")
