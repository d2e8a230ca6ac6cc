"""The persistent threads of a model: they run the step function beside the caller, and park when nothing comes."""

import os
import threading

import numpy as np

from runtime.cores import first_threads
from runtime.overruns import overruns
from runtime.simd.tier import CHECKED
from runtime.step import SYNC, empty, follow, lead

PATIENCE = 60_000  # looks for a new job before a thread parks: a few milliseconds


class Crew:
    """`threads` workers, the calling thread among them; `run` is not reentrant."""

    def __init__(self, threads: int):
        self.threads = threads
        memory = np.zeros(SYNC // 8 + 8, np.int64)
        skip = -memory.ctypes.data % 64 // 8
        self._sync = memory[skip : skip + SYNC // 8]  # on a cache line of its own
        self._address = self._sync.ctypes.data
        self._changed = threading.Condition()
        self._parked, self._jobs, self._closing = 0, 0, False
        self._table: np.ndarray | None = None
        self._helpers = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(1, threads)]
        for helper in self._helpers:
            helper.start()

    def run(self, table: np.ndarray, first: int, end: int, tokens: int, start: int) -> None:
        """Run rows first..end of a table for `tokens` tokens at positions start..; returns when all of it is done."""
        if table is not self._table:
            self.leave()
            self._table = table  # kept for as long as a follower may look at it
        with self._changed:
            self._jobs += 1
            if self._parked:
                self._changed.notify_all()
        lead(self._address, table.ctypes.data, first, end, tokens, start, self.threads, self._jobs)
        if CHECKED and overruns.value:
            raise RuntimeError(f"a kernel left its buffers {overruns.value} times in rows {first}..{end}")

    def leave(self) -> None:
        """Wait until no helper is inside a job any more: after one that was given up its arrays may go then."""
        if self.threads > 1:
            empty(self._address)
        self._table = None

    def _serve(self, thread: int) -> None:
        cores = first_threads()
        if len(cores) >= self.threads:
            os.sched_setaffinity(0, cores)  # of this thread: never two workers on the two halves of one core
        seen = 0
        while True:
            with self._changed:
                while self._jobs == seen and not self._closing:
                    self._parked += 1
                    self._changed.wait()
                    self._parked -= 1
                if self._closing:
                    return
            seen = follow(self._address, thread, self.threads, seen, PATIENCE)

    def close(self) -> None:
        """Let the threads go; does nothing the second time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for helper in self._helpers:
            helper.join()
        self._helpers = []
