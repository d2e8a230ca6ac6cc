"""What kernels are made of, promised: made when the first kernel that names it is compiled.

Numba takes half a second to import and each of its functions and intrinsics some time to make. Where all kernels are on
disk none of it is needed, so nothing of Numba stands in a module that a kernel imports, but promises of it.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numba import types


class Promise:
    """What `make` returns. A compiled function may name it as if it were that."""

    def __init__(self, make: Callable[[], Any]):
        self._make = make

    @cached_property
    def made(self) -> Any:
        """The thing itself."""
        return self._make()

    @cached_property
    def _numba_type_(self) -> "types.Type":
        """What Numba asks of an object that a function names."""
        from numba.core.registry import cpu_target

        made, context = self.made, cpu_target.typing_context
        context.refresh()  # to know what has just been made
        return context.resolve_value_type(made)
