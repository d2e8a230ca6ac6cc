"""The threads that share one operation: each takes one contiguous range of the work."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise


def physical_cores() -> int:
    """Cores this process may use, counting two hyper-threads of a core once where the system tells (Linux)."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as siblings:
                cores.add(siblings.read().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


class Crew:
    """`threads` workers, the calling thread among them."""

    def __init__(self, threads: int):
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="refquant") if threads > 1 else None

    def run(self, work: Callable[[int, int], None], count: int, cost: int) -> None:
        """Call work(lo, hi) over a partition of range(count); `cost` is the number of multiplications in all.

        Work too small to pay for waking a thread (about 50 us) stays here. Returns, or raises, after every part ended.
        """
        parts = min(self.threads, count, 1 + cost // 500_000)
        if parts == 1 or self._pool is None:
            work(0, count)
            return
        ranges = list(pairwise(count * i // parts for i in range(parts + 1)))
        others = [self._pool.submit(work, lo, hi) for lo, hi in ranges[1:]]
        try:
            work(*ranges[0])
        finally:
            wait(others)
        for other in others:
            other.result()

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
