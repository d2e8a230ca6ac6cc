"""Peaks: the largest magnitude of each group, which is what most scales are made from.

Shapes   rows (groups, members) float32 -> (groups,) float32, never -0.
Speed    a maximum over a short axis starts anew for every row; groups below 128 members are laid out the other way
         round first, a slab at a time, which costs less than it saves.
"""

import numpy as np

from refquant.groups import slabs

_SHORT, _SLAB = 128, 1 << 16


def peaks(rows: np.ndarray) -> np.ndarray:
    """max|x| of each row. No row may be empty; NaN comes through."""
    groups, members = rows.shape
    if members >= _SHORT:
        return np.maximum(-rows.min(axis=1), rows.max(axis=1)) + np.float32(0)  # + 0 turns -0 into 0
    peak = np.empty(groups, np.float32)
    for part, _ in slabs(rows.shape, _SLAB):
        turned = np.empty((members, len(peak[part])), np.float32)
        np.abs(rows[part].T, out=turned).max(axis=0, out=peak[part])
    return peak
