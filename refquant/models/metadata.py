"""Metadata of one GGUF architecture, read with a type and a range for every key.

`Section("model.gguf", metadata, "llama").whole("block_count", 1, 512)` reads `llama.block_count`. Nothing is converted:
an integer key must hold an integer (a bool is not one), a real key a float, so that a file cannot turn `True` into a
layer count or `"inf"` into a frequency. Whatever is missing, of another type or out of range is a GGUFError that names
file, key and value.

Source   the table of keys in llama.cpp, src/llama-arch.cpp; its loader compares types as strictly.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf.strings import Strings


@dataclass(frozen=True, slots=True)
class Section:
    """The keys `prefix.*` of `metadata`; `path` is only for messages. A default of None makes a key required."""

    path: str | Path
    metadata: Mapping[str, Any]
    prefix: str

    def __contains__(self, key: str) -> bool:
        return f"{self.prefix}.{key}" in self.metadata

    def whole(self, key: str, lowest: int, highest: int, default: int | None = None) -> int:
        """An integer in lowest..highest; the default is held to the same range."""
        want = f"an integer in {lowest}..{highest}"
        value = self._value(key, default, want)
        if type(value) is not int or not lowest <= value <= highest:
            raise self.error(key, value, want)
        return value

    def real(self, key: str, lowest: float, highest: float, default: float | None = None) -> float:
        """A float in lowest..highest; NaN is in no range."""
        want = f"a float in {lowest:g}..{highest:g}"
        value = self._value(key, default, want)
        if type(value) is not float or not lowest <= value <= highest:
            raise self.error(key, value, want)
        return value

    def text(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """One of the strings of `allowed`."""
        want = f"one of {', '.join(allowed)}"
        value = self._value(key, default, want)
        if type(value) is not str or value not in allowed:
            raise self.error(key, value, want)
        return value

    def per_layer(self, key: str, n_layer: int, lowest: int, highest: int, default: int | None = None) -> int:
        """An integer, or one integer for every layer as long as all are the same: then that one."""
        value = self._value(key, default, f"an integer in {lowest}..{highest}")
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "iu" or value.shape != (n_layer,):
                raise self.error(key, value, f"an integer or {n_layer} integers, one a layer")
            if (value != value[0]).any():
                raise self.error(key, value, "one number for every layer: layers of different sizes are not supported")
            value = int(value[0])
        if type(value) is not int or not lowest <= value <= highest:
            raise self.error(key, value, f"an integer in {lowest}..{highest}")
        return value

    def require_neutral(self, key: str, neutral: tuple[Any, ...]) -> None:
        """Raise unless the key is absent or every value it holds is one of `neutral`, those that change nothing."""
        value = self.metadata.get(f"{self.prefix}.{key}", neutral[0])
        several = isinstance(value, list | Strings | np.ndarray)
        if not all(v in neutral for v in (value if several else [value])):
            raise self.error(key, value, f"{neutral[0]}: the computation this key asks for is not supported")

    def error(self, key: str, got: Any, want: str) -> GGUFError:
        return GGUFError(f"{self.path}: {self.prefix}.{key} = {reprlib.repr(got)}, expected {want}")

    def _value(self, key: str, default: Any, want: str) -> Any:
        value = self.metadata.get(f"{self.prefix}.{key}", default)
        if value is None:
            raise GGUFError(f"{self.path}: {self.prefix}.{key} is missing, expected {want}")
        return value
