"""Weights that are quantized already and fit what is wanted: their codes are moved to the new layout, not found anew.

    GPTQ's int4-g128 to W4A16 of compressed-tensors, AWQ's to GPTQ's ...       the same numbers, proved (transcode.py)

Rounding what was rounded loses a little once more, and is not needed where bits, groups and symmetry are those that are
asked for. What the target cannot hold exactly (a float16 scale in bfloat16, a zero point where it has none) is rounded
after all.
"""

from collections.abc import Mapping

import numpy as np

from refquant import affine
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.layouts.catalogue import Record
from refquant.layouts.linear import Linear
from refquant.layouts.transcode import convert
from refquant.pipeline.configured import Stored
from refquant.pipeline.part import Part


def moved(part: Part, short: str) -> Mapping[str, np.ndarray] | None:
    """The arrays of a layer in its new layout, or None where it is to be rounded."""
    full = part.names[short]
    modifier, how = part.plan[part.layer(short)]
    record = part.checkpoint.record(full)
    if record is None or modifier.method != "nearest" or part.scaled.is_file() or not fits(record, how):
        return None
    try:
        return convert(record, how.layout)
    except (RangeError, ShapeError, SchemeError):
        return None


def fits(record: Record, how: Stored) -> bool:
    """Whether the numbers of a record are of the kind that is asked for."""
    rule, granularity = how.scheme.rule, how.scheme.granularity
    if not isinstance(record, Linear):
        return False
    if not isinstance(rule, affine.Rule) or record.bits != rule.bits or granularity.kind not in ("group", "channel"):
        return False
    size = granularity.size if granularity.kind == "group" else record.codes.shape[1]
    return record.group_size == size and (record.symmetric or not rule.symmetric)
