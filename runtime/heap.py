"""Memory that was freed and not given back: the C library keeps it for what may be asked for next.

Opening the file of a model and building its tokenizer each free 20 MB that are never asked for again.
"""

import ctypes
import sys


def trim() -> None:
    """Give free memory back to the system, where the C library has a word for that (glibc)."""
    if sys.platform == "linux" and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        give_back(0)
