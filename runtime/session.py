"""One conversation: the tokens read so far and their keys and values, reused as far as the next prompt agrees."""

import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import ContextFullError, RangeError, ShapeError

if TYPE_CHECKING:
    from runtime.model import Model

Progress = Callable[[str, int, int], None]
SLICE_SECONDS = 1.5  # a prompt is read in slices of about this length, so that progress is seen
FIRST_SLICE, MAX_SLICE = 128, 512


class Session:
    """Reads tokens for one model; `tokens` are those whose keys and values lie in the cache."""

    def __init__(self, model: "Model", n_ctx: int | None = None):
        self.model = model
        self.n_ctx = model.n_ctx if n_ctx is None else n_ctx
        if not 1 <= self.n_ctx <= model.n_ctx:
            raise RangeError(f"Session: n_ctx = {self.n_ctx}, expected 1..{model.n_ctx}, the context of the model")
        from runtime.cache import KVCache  # imports kernels

        self.cache = KVCache(model.config, self.n_ctx, model.kv_dtype)
        self.tokens: list[int] = []
        self._slice = FIRST_SLICE

    @property
    def position(self) -> int:
        """How many tokens have been read."""
        return len(self.tokens)

    def truncate(self, position: int) -> None:
        """Forget the tokens from `position` on."""
        if not 0 <= position <= self.position:
            raise RangeError(f"Session.truncate: position = {position}, expected 0..{self.position}")
        del self.tokens[position:]

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> np.ndarray:
        """Make the history equal to `ids` and return the logits (n_vocab,) float32 that follow its last token.

        The longest common prefix with what was read before is kept. `progress("prompt", done, total)` counts the tokens
        that had to be read. An interruption leaves the session at the last slice that was finished.
        """
        wanted = self.model.check_ids("Session.prefill", ids)
        if len(wanted) > self.n_ctx:
            raise ContextFullError(
                f"Session.prefill: the prompt has {len(wanted)} tokens, expected at most {self.n_ctx}, the context"
            )
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.tokens, wanted.tolist())))
        self.truncate(min(same, len(wanted) - 1))  # the last token is read again if need be: its logits are the answer
        return self._read(wanted[self.position :], last=True, progress=progress)[-1]

    def append(self, token: int) -> np.ndarray:
        """Read one more token and return the logits (n_vocab,) float32 that follow it."""
        ids = self.model.check_ids("Session.append", [token])
        if self.position >= self.n_ctx:
            raise ContextFullError(f"Session.append: the context of {self.n_ctx} tokens is full")
        return self._read(ids, last=True, progress=None)[-1]

    def read_all(self, ids: Sequence[int]) -> np.ndarray:
        """Read `ids` after what was read before and return the logits after each: (len(ids), n_vocab) float32."""
        wanted = self.model.check_ids("Session.read_all", ids)
        if self.position + len(wanted) > self.n_ctx:
            raise ContextFullError(
                f"Session.read_all: {self.position} + {len(wanted)} tokens, expected at most {self.n_ctx}, the context"
            )
        return self._read(wanted, last=False, progress=None)

    def _read(self, ids: np.ndarray, last: bool, progress: Progress | None) -> np.ndarray:
        parts, done = [], 0
        while done < len(ids):
            piece = ids[done : done + self._slice]
            ending = done + len(piece) == len(ids)
            began = time.perf_counter()
            wanted = int(ending) if last else len(piece)
            parts.append(self.model.step(piece, self.cache, self.position, wanted))
            self._learn_slice(len(piece), time.perf_counter() - began)
            self.tokens.extend(piece.tolist())
            done += len(piece)
            if progress is not None and len(ids) > 1:
                progress("prompt", done, len(ids))
        return np.concatenate(parts)

    def _learn_slice(self, tokens: int, seconds: float) -> None:
        """Choose the next slice by the speed of this one; how a prompt is cut changes no bit of the result."""
        if tokens == self._slice:
            rate = tokens / max(seconds, 1e-6)
            self._slice = int(min(max(rate * SLICE_SECONDS, 8), 2 * self._slice, MAX_SLICE))


def check_ids(where: str, ids: Sequence[int], n_vocab: int) -> np.ndarray:
    """`ids` as int64, or ShapeError for none or a wrong shape, RangeError for anything that is no id."""
    array = np.asarray(ids)
    if array.ndim != 1 or not len(array):
        raise ShapeError(f"{where}: ids.shape = {array.shape}, expected a list of at least one token id")
    if array.dtype.kind not in "iu":
        raise RangeError(f"{where}: ids are {array.dtype}, expected integers in 0..{n_vocab - 1}")
    wrong = (array < 0) | (array >= n_vocab)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RangeError(f"{where}: ids[{first}] = {array[first]}, expected 0..{n_vocab - 1}")
    return array.astype(np.int64)
