"""The tests of llama-bench on a model: what is read before the clock starts, and what while it runs.

    pp512            a prompt of 512 random tokens, logits after the last one
    tg128            128 random tokens, one a step, logits after each
    pp512+tg128      the one after the other
    ... @ d4096      the same after 4096 tokens that were read before

The tokens are random because nothing depends on them, and are not sampled: choosing a token is not part of the test.
Source   tools/llama-bench of llama.cpp: test_prompt, test_gen, one warm-up of the prompt and of one token.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import RangeError
from runtime.session import Session

if TYPE_CHECKING:
    from runtime.model import Model

SEED = 0


@dataclass(frozen=True, slots=True)
class SpeedTest:
    """How many tokens are read as a prompt, then one by one, after how many of before."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    def __post_init__(self):
        if min(self.n_prompt, self.n_gen, self.n_depth) < 0 or self.n_prompt + self.n_gen == 0:
            got = f"n_prompt = {self.n_prompt}, n_gen = {self.n_gen}, n_depth = {self.n_depth}"
            raise RangeError(f"SpeedTest: {got}, expected none below 0 and a prompt or tokens to write")

    def __str__(self) -> str:
        parts = [f"{name}{count}" for name, count in (("pp", self.n_prompt), ("tg", self.n_gen)) if count]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def n_ctx(self) -> int:
        """Positions of the context that it fills."""
        return self.n_depth + self.n_prompt + self.n_gen

    @property
    def n_tokens(self) -> int:
        """Tokens that are counted."""
        return self.n_prompt + self.n_gen


class SpeedRun:
    """One test on one model: the depth is read and everything warmed up here, then `seconds()` as often as wanted."""

    def __init__(self, model: "Model", test: SpeedTest):
        ids = np.random.default_rng(SEED).integers(0, model.config.n_vocab, test.n_ctx)
        self.test = test
        self._session = Session(model, test.n_ctx)
        self._prompt = ids[: test.n_depth + test.n_prompt]  # with what was before: a session knows what it has read
        self._written = ids[len(self._prompt) :].tolist()
        if test.n_depth:
            self._session.prefill(self._prompt[: test.n_depth])
        self._read(1)

    def seconds(self) -> float:
        """How long the test takes, once more."""
        self._session.truncate(self.test.n_depth)
        began = time.perf_counter()
        self._read(self.test.n_gen)
        return time.perf_counter() - began

    def _read(self, n_gen: int) -> None:
        if self.test.n_prompt:
            self._session.prefill(self._prompt)
        for token in self._written[:n_gen]:
            self._session.append(token)
