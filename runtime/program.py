"""A table of operations for the step function, built row by row from arrays and numbers."""

import numpy as np

from runtime.jit import Compiled
from runtime.step import ROW

RECORD, INTEGERS = 8, 32  # where in a row the record begins; where in the record its integers do
NOTHING = np.zeros(0, np.uint8)


class Program:
    """Rows to come. The arrays must outlive the program, which keeps them."""

    def __init__(self):
        self._kernels: list[Compiled] = []
        self._called: list[Compiled] = []
        self._addresses: list[tuple[int, int, Compiled]] = []  # (row, column, what is called from the kernel)
        self._rows: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []

    def add(
        self,
        kernel: Compiled,
        buffers: list[np.ndarray | None],
        numbers: list[int | float | Compiled],
        *,
        fixed: int = 0,
        per_token: int = 0,
        per_cut: int = 0,
        per_six: int = 0,
        beside: bool = False,
    ) -> None:
        """Append `kernel` with its record, its units of work, and whether the next row may run beside it."""
        row = np.zeros(ROW, np.int64)
        row[1:6] = fixed, per_token, per_cut, beside, per_six
        for i, array in enumerate(buffers):
            array = NOTHING if array is None else array
            row[RECORD + 2 * i : RECORD + 2 * i + 2] = array.ctypes.data, array.nbytes
            self._kept.append(array)
        for i, value in enumerate(numbers):
            at = RECORD + INTEGERS + i
            if isinstance(value, Compiled):
                self._called.append(value)
                self._addresses.append((len(self._rows), at, value))
            else:
                row[at] = np.float64(value).view(np.int64) if isinstance(value, float) else value
        self._kernels.append(kernel)
        self._rows.append(row)

    def wait(self) -> None:
        """Let what comes next begin only when all rows so far are over."""
        self._rows[-1][4] = False

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def kernels(self) -> list[Compiled]:
        """Everything that the table will call."""
        return self._kernels + self._called

    def table(self) -> np.ndarray:
        """The rows with the addresses of their kernels, (rows, ROW) int64; compiles what is not compiled yet."""
        size = len(self._rows) * ROW
        memory = np.zeros(size + 8, np.int64)
        skip = -memory.ctypes.data % 64 // 8  # every row begins a cache line
        table = memory[skip : skip + size].reshape(-1, ROW)
        table[:] = np.reshape(self._rows, (-1, ROW))
        table[:, 0] = [kernel.address for kernel in self._kernels]
        for row, column, called in self._addresses:
            table[row, column] = called.address
        return table
