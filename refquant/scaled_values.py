"""The last step of every decoder with a table: the value of each code times the scale of its group.

    x^ = VALUE[code] * scale          float32, one rounding; overflow gives infinity and NaN stays NaN, silently

Shapes   codes any, uint8, each an index of `values` (codes past its end take the last value: check them first);
         scale one value, or as many as the granularity has groups.
"""

import numpy as np

from refquant import groups
from refquant.groups import Granularity

_SLAB = 1 << 16


def scaled_values(
    where: str, codes: np.ndarray, values: np.ndarray, scale: np.ndarray, granularity: Granularity
) -> np.ndarray:
    """float32 in the shape of `codes`. Raises ShapeError."""
    rows = groups.split(where, codes, granularity)
    scales = groups.column(where, "scale", scale, len(rows))
    x = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for part in groups.slabs(rows.shape, _SLAB):
            values.take(rows[part], out=x[part], mode="clip")
            x[part] *= scales[part[0]]
    return groups.join(x, codes.shape, granularity)
