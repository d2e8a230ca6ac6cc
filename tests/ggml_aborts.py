"""ggml's encoders in processes of their own, for the types whose asserts end the process on some blocks.

A child encodes into shared memory, all at once if it can. If that aborts, children go on block by block, and the one
block that each of them dies at is marked. POSIX only: it forks.
"""

import mmap
import os
from collections.abc import Callable

import numpy as np
from ggml_base import GGML

from refquant.gguf.formats import BlockFormat


def encode(
    ggml: GGML, fmt: BlockFormat, x: np.ndarray, imatrix: np.ndarray | None, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x (., n), imatrix (n,) or None -> uint8 (blocks, block_bytes), and which blocks abort: bool (blocks,).

    Only for types whose blocks know nothing of the rest of their row. The bytes of an aborted block are zeros. A child
    for every one of them takes its time: where any aborts, only the first `rows` of x are encoded.
    """
    ggml.library.ggml_quantize_init(fmt.ggml_id)  # in this process: it uses OpenMP, which does not survive a fork
    count = x.size // fmt.values
    data = np.frombuffer(mmap.mmap(-1, count * fmt.block_bytes), np.uint8).reshape(count, fmt.block_bytes)
    begun = np.frombuffer(mmap.mmap(-1, 8), np.int64)  # by the children

    def all_at_once() -> None:
        data[:] = ggml.encode(fmt, x, imatrix).reshape(data.shape)

    if _survives(all_at_once):
        return data.copy(), np.zeros(count, bool)
    if rows is not None and rows < len(x):
        return encode(ggml, fmt, x[:rows], imatrix)
    blocks = x.reshape(count, fmt.values)
    importance = None if imatrix is None else np.tile(imatrix, len(x)).reshape(blocks.shape)

    def one_by_one() -> None:
        for i in range(begun[0], count):
            begun[0] = i + 1
            data[i] = ggml.encode(fmt, blocks[i : i + 1], None if importance is None else importance[i])[0]

    aborted = np.zeros(count, bool)
    while not _survives(one_by_one):
        aborted[begun[0] - 1] = True
    return data.copy(), aborted


def _survives(work: Callable[[], None]) -> bool:
    child = os.fork()
    if child != 0:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        os.environ["GGML_NO_BACKTRACE"] = "1"
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        work()
        status = 0
    finally:
        os._exit(status)
