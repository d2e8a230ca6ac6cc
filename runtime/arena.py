"""Where packed weights stand: one allocation, whose pages the system hands out while something else still runs.

Memory that nobody used lately costs a fault a page, and in a virtual machine another one outside of it: 0.1 to 2 s for
each GB, which one thread spends while kernels are imported. What it touched is zeros, before and after.
"""

import threading

import numpy as np

from runtime.aligned import ALIGNMENT, pages

CHUNK = 256 << 20  # bytes that the system is asked for at once; what is not used is never given
PAGE, STEP = 4096, 32 << 20  # bytes: one write a page; between two looks whether to go on


class Arena:
    """Zeros that stay for as long as an array of them does. `expected`: bytes that will be taken, to begin with."""

    def __init__(self, expected: int = 0):
        self._free = pages(expected + CHUNK, huge=True) if expected else np.zeros(0, np.uint8)
        self._settled = threading.Event()
        self._toucher = threading.Thread(target=self._touch, args=(self._free[:expected],), daemon=True)
        self._toucher.start()

    def take(self, nbytes: int) -> np.ndarray:
        """`nbytes` zeros, aligned; from the first call on pages are left to whoever writes them."""
        self.settle()
        room = -(-nbytes // ALIGNMENT) * ALIGNMENT
        if room > len(self._free):
            self._free = pages(max(room, CHUNK), huge=True)
        taken, self._free = self._free[:nbytes], self._free[room:]
        return taken

    def settle(self) -> None:
        """Stop asking for pages ahead of time."""
        if not self._settled.is_set():
            self._settled.set()
            self._toucher.join()

    def _touch(self, memory: np.ndarray) -> None:
        for first in range(0, len(memory), STEP):
            if self._settled.is_set():
                return
            memory[first : first + STEP : PAGE] = 0  # NumPy lets the interpreter go on meanwhile
