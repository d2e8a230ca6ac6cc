"""A model from a GGUF file: load it, ask for logits, let it write.

    with Model.load("model.gguf") as model:
        ids = model.tokenizer.encode("Once upon a time")
        print(model.tokenizer.decode(model.generate(ids, 64, temperature=0)))
        for piece in model.chat([{"role": "user", "content": "What is malloc?"}]):
            print(piece, end="", flush=True)

Calls from several threads are served one step at a time: a lock is held for each step, and every generation has a cache
of its own, so generators may be mixed freely. Models share nothing.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refquant import gguf
from refquant.errors import ContextFullError, QuantError, RangeError
from refquant.models import ModelConfig, check_tensors, model_tensors
from refquant.text import Tokenizer
from runtime import heap
from runtime.arena import Arena
from runtime.cores import physical_cores
from runtime.sampling import Sampler
from runtime.session import Progress, Session, check_ids

if TYPE_CHECKING:
    from refquant.text import ChatTemplate
    from runtime.cache import KVCache
    from runtime.weights import Weights

DEFAULT_CONTEXT = 8192  # tokens, where the model was trained for more: a longer one costs memory and must be asked for
MAX_THREADS = 256


class Model:
    """Weights, tokenizer, chat template and threads of one GGUF file. Make it with `Model.load`."""

    def __init__(
        self,
        file: gguf.GGUFFile,
        config: ModelConfig,
        n_ctx: int,
        kv_dtype: str,
        threads: int,
        progress: Progress | None,
    ):
        self.gguf, self.config, self.n_ctx, self.kv_dtype = file, config, n_ctx, kv_dtype
        heap.trim()  # of what opening the file took
        warnings = check_tensors(file, config)
        arena = Arena(_matrix_bytes(file, config))
        try:
            from runtime.engine import Engine  # imports all kernels; meanwhile the arena gets its pages

            self._engine = Engine(file, config, n_ctx, threads, kv_dtype, arena)
            try:
                with ThreadPoolExecutor(1) as aside:  # a large vocabulary takes as long as packing
                    tokenizer = aside.submit(Tokenizer.from_gguf, file)
                    self._engine.prepare(progress)
                    self.tokenizer = tokenizer.result()
            except BaseException:
                self._engine.close()
                raise
        finally:
            arena.settle()
        heap.trim()
        self.notices = (*warnings, *self.weights.notices)
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def load(
        cls,
        path: str | os.PathLike | gguf.GGUFFile,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        kv_dtype: str = "f16",
        progress: Progress | None = None,
    ) -> "Model":
        """Open, check and prepare a GGUF file of a Llama, Qwen2 or Qwen3 model, with experts or without.

        path      of the file, or the file as refquant.gguf.open has opened it: it is closed with the model
        n_ctx     positions of the context; default: what the model was trained for, at most 8192
        threads   default: the physical cores this process may use (runtime.cores)
        kv_dtype  "f16", "f32" or "q8_0": the type of the keys and values
        progress  called as progress(stage, done, total) with the stages "load" and "compile"

        Raises GGUFError for anything wrong with the file, RangeError for a wrong argument.
        """
        threads = physical_cores() if threads is None else threads
        if not 1 <= threads <= MAX_THREADS:
            raise RangeError(f"Model.load: threads = {threads}, expected 1..{MAX_THREADS}")
        file = path if isinstance(path, gguf.GGUFFile) else gguf.open(Path(path))
        try:
            config = ModelConfig.from_metadata(file)
            n_ctx = min(config.n_ctx_train, DEFAULT_CONTEXT) if n_ctx is None else n_ctx
            if not 1 <= n_ctx <= config.n_ctx_train:
                raise RangeError(f"Model.load: n_ctx = {n_ctx}, expected 1..{config.n_ctx_train}, the trained context")
            return cls(file, config, n_ctx, kv_dtype, threads, progress)
        except BaseException:
            file.close()
            raise

    @property
    def weights(self) -> "Weights":
        """What is multiplied."""
        return self._engine.weights

    @cached_property
    def template(self) -> "ChatTemplate":
        """The chat template of the file."""
        from refquant.text import ChatTemplate  # completing text needs none

        return ChatTemplate.from_gguf(self.gguf, self.tokenizer)

    @property
    def threads(self) -> int:
        """Threads that share a step."""
        return self._engine.crew.threads

    def check_ids(self, where: str, ids: Sequence[int]) -> np.ndarray:
        """`ids` as an array, or a ValueError that says which one is wrong."""
        return check_ids(where, ids, self.config.n_vocab)

    def step(self, ids: np.ndarray, cache: "KVCache", start: int, wanted: int) -> np.ndarray:
        """Read checked `ids` at positions start.. of `cache`; (wanted, n_vocab) float32 logits after the last ones."""
        with self._lock:
            if self._closed:
                raise QuantError("Model: the model is closed")
            return self._engine.step(ids, cache, start, wanted)

    def logits(self, ids: Sequence[int], last: bool = False) -> np.ndarray:
        """Logits after each of `ids`, or after the last one: (len(ids) or 1, n_vocab) float32."""
        checked = self.check_ids("Model.logits", ids)
        if len(checked) > self.n_ctx:
            raise ContextFullError(f"Model.logits: {len(checked)} ids, expected at most {self.n_ctx}, the context")
        session = Session(self, len(checked))
        return session.prefill(checked)[None] if last else session.read_all(checked)

    def generate(
        self,
        ids: Sequence[int],
        n: int,
        *,
        session: Session | None = None,
        progress: Progress | None = None,
        stop_at_eog: bool = True,
        **sampling,
    ) -> Iterator[int]:
        """Yield up to n ids that follow `ids`; ends before an end-of-generation token, which is not yielded.

        `sampling` are the arguments of runtime.sampling.Sampler (temperature, top_k, top_p, min_p, repeat_penalty,
        repeat_last_n, seed). With a `session`, what it has read before is reused. Arguments are checked at the call.
        Raises ContextFullError when the prompt does not fit, or, after the last token that fits, while writing.
        """
        checked = self.check_ids("Model.generate", ids)
        if not isinstance(n, int) or n < 0:
            raise RangeError(f"Model.generate: n = {n!r}, expected a number of tokens >= 0")
        sampler = Sampler(**sampling)
        if session is None:
            session = Session(self, min(self.n_ctx, len(checked) + n))
        if len(checked) > session.n_ctx:
            raise ContextFullError(
                f"Model.generate: the prompt has {len(checked)} tokens, expected at most {session.n_ctx}, the context"
            )
        return self._generate(checked, n, session, sampler, progress, stop_at_eog)

    def _generate(self, ids, n, session, sampler, progress, stop_at_eog) -> Iterator[int]:
        history = ids.tolist()
        logits = session.prefill(ids, progress) if n else None
        for i in range(n):
            token = sampler.sample(logits, history)
            if stop_at_eog and token in self.tokenizer.eog:
                return
            history.append(token)
            yield token
            if i + 1 < n:
                logits = session.append(token)

    def chat(self, messages: Iterable[Mapping[str, str]], n: int = 512, **options) -> Iterator[str]:
        """Yield the answer to `messages`, [{"role": "user", "content": "..."}, ...], as pieces of text."""
        return self._text(self.generate(self.template.encode(list(messages)), n, **options))

    def _text(self, ids: Iterator[int]) -> Iterator[str]:
        stream = self.tokenizer.stream()
        for token in ids:
            if piece := stream.push(token):
                yield piece
        if piece := stream.flush():
            yield piece

    def close(self) -> None:
        """Let threads and file go; later steps raise."""
        with self._lock:
            self._closed = True
            self._engine.close()
            if "template" in self.__dict__ and hasattr(self.template, "close"):
                self.template.close()
            self.gguf.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _matrix_bytes(file: gguf.GGUFFile, config: ModelConfig) -> int:
    """Bytes of the matrices that are multiplied; an embedding that is not the output too is read row by row."""
    read = None if config.tied_output else "token_embd.weight"
    used = model_tensors(file, config)
    return sum(tensor.nbytes for name, tensor in used.items() if len(tensor.shape) > 1 and name != read)
