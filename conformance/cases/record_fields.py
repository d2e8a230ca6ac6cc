"""A record as the inputs and the params of a test."""

import numpy as np

from refquant.layouts import Floating, Linear


def fields_of(record: Linear | Floating) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Fields that are arrays, and the others."""
    fields = {name: getattr(record, name) for name in record.__slots__}
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, np.ndarray | np.generic)}
    return arrays, {k: v for k, v in fields.items() if v is not None and k not in arrays}
