"""general.size_label of a GGUF file: "8B", "494M", "8x7B", what people tell models of one family apart by.

    dense     all parameters                               with experts     N x (what is shared + one expert)

Digits    at least two: 7.6B, 34M, 105K; one or two decimals where the number before the point is short.
Source    gguf-py 0.19, utility.py (size_label), gguf_writer.py (get_total_parameter_count).
"""

import math
from collections.abc import Mapping

SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def size_label(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of tensors by GGUF's names; stacked experts are (experts, out, in)."""
    shared = expert = count = 0
    for name, shape in shapes.items():
        if "_exps." in name:
            count, expert = shape[0], expert + math.prod(shape[1:])
        else:
            shared += math.prod(shape)
    return f"{count}x{_short(shared + expert)}" if count else _short(shared)


def _short(parameters: int) -> str:
    scale, suffix = next((s for s in SCALES if parameters > s[0]), (1e3, "K"))
    whole = f"{parameters / scale:.0f}".lstrip("0")
    return f"{parameters / scale:.{max(2 - len(whole), 0)}f}{suffix}"
