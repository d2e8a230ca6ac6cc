"""How fast memory can be read here: the ceiling of writing text, which reads every weight once a token.

    bytes/s = nbytes / median of `repeats` times that `threads` threads take to sum an array of nbytes

Each thread sums one contiguous part, as the rows of a matrix are shared. The array is as large as the weights, because
one that fits into a cache is read from there. Its pages are written first: untouched ones would all be the same zeros.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from refquant.errors import RangeError

REPEATS = 7
WORD = 8


@numba.njit(
    nogil=True
)  # integers may be summed in any order, so this becomes vector code on every CPU, without a cache
def _sum(words):
    total = np.uint64(0)
    for i in range(len(words)):
        total += words[i]
    return total


def read_bandwidth(nbytes: int, threads: int, repeats: int = REPEATS) -> float:
    """Bytes that `threads` threads read in a second, out of nbytes (rounded down to words of 8). Takes that memory.

    Raises RangeError for less than a word a thread.
    """
    if threads < 1 or repeats < 1 or nbytes < WORD * threads:
        got = f"nbytes = {nbytes}, threads = {threads}, repeats = {repeats}"
        raise RangeError(f"bandwidth.read_bandwidth: {got}, expected 1 or more and {WORD} bytes a thread")
    words = np.ones(nbytes // WORD, np.uint64)
    parts = np.array_split(words, threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            began = time.perf_counter()
            total = sum(int(part) for part in pool.map(_sum, parts))
            seconds.append(time.perf_counter() - began)
            if total != len(words):  # also keeps the sum from being optimized away
                raise RuntimeError(f"bandwidth.read_bandwidth: sum = {total}, expected {len(words)}")
    return words.nbytes / statistics.median(seconds[1:])  # the first run compiled
