"""The keys `tokenizer.ggml.*` of one file, each of the type it must have, or a GGUFError with file, key and value."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf.strings import Strings

PREFIX = "tokenizer.ggml."


@dataclass(frozen=True, slots=True)
class Fields:
    """`metadata` as GGUFFile holds it; `path` is only for messages."""

    path: str | Path
    metadata: Mapping[str, Any]

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required unless there is a default."""
        value = self.metadata.get(PREFIX + key, default)
        if type(value) is not str:
            raise self.error(key, self._shown(key), "a string")
        return value

    def texts(self, key: str) -> Strings:
        """An array of strings; required."""
        value = self.metadata.get(PREFIX + key)
        if not isinstance(value, Strings | list):
            raise self.error(key, self._shown(key), "an array of strings")
        return value if isinstance(value, Strings) else Strings.of(value)

    def numbers(self, key: str, dtypes: tuple[str, ...], least: int) -> np.ndarray | None:
        """An array of one of `dtypes` with at least `least` elements; None if the key is absent."""
        value = self.metadata.get(PREFIX + key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.name not in dtypes:
            raise self.error(key, self._shown(key), f"an array of {' or '.join(dtypes)}")
        if value.shape[0] < least:
            raise self.error(key, f"{value.shape[0]} values", f"{least}, one a token")
        return value

    def whole(self, key: str) -> int | None:
        """An integer; None if the key is absent."""
        value = self.metadata.get(PREFIX + key)
        if value is not None and type(value) is not int:
            raise self.error(key, self._shown(key), "an integer")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(PREFIX + key, default)
        if type(value) is not bool:
            raise self.error(key, self._shown(key), "true or false")
        return value

    def error(self, key: str, got: object, want: str) -> GGUFError:
        return GGUFError(f"{self.path}: {PREFIX}{key} = {got}, expected {want}")

    def _shown(self, key: str) -> str:
        """The value for a message: short, whatever it is."""
        return reprlib.repr(self.metadata[PREFIX + key]) if PREFIX + key in self.metadata else "nothing"
