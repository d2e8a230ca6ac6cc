"""Weights asked for before they are needed.

    memory    ... [ super-block k | k + 1 | k + 2 ] ...       read: k, in the order of its fields
                                    ^ AHEAD: asked for, line by line, a part with each step of the work on k

The matrix of a product is read once from end to end, but a super-block with several fields of codes is read at several
places in turn, and the hardware does not see that one follows the other. So a kernel asks for every line itself, in
ascending order and a few with each step: Q6_K on one Zen 4 core then reads 18 GB/s instead of 9, and 12 if it asks for
a whole super-block at once. Lines beyond the end of the matrix are asked for as well, which is harmless.
"""

from runtime.jit import inlined
from runtime.simd import prefetch

LINE = 64  # bytes that one prefetch asks for
AHEAD = 8192  # bytes; 6720, 13440 and 26880 were measured alike


def lines_of(block: int, steps: int) -> int:
    """How many lines each of `steps` steps must ask for, so that all of a block of that many bytes are."""
    return -(-block // (LINE * steps))


@inlined
def ask_ahead(w, at, step, lines):
    """Ask for those that step number `step` of the work on the super-block at byte `at` is to ask for."""
    for i in range(lines):
        prefetch(w, at + AHEAD + (step * lines + i) * LINE)
