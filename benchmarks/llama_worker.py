"""llama.cpp as a worker process: its C functions through ctypes, no Python of llama-cpp-python in between.

Differs from llama-bench in nothing that is measured: random tokens, batches of 512, llama_synchronize after each step,
a warm-up of the whole prompt and of one token, weights repacked and mapped as llama.cpp chooses by default.
Imports the standard library and llama_cpp only.
"""

import ctypes
import random
import time

from benchmarks.serving import serve

BATCH = 512
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}  # enum ggml_type
FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type


class Engine:
    """One model and one context at a time."""

    def __init__(self):
        self.model = self.context = None
        self.flash = "auto"
        self.log: list[str] = []

    def about(self, flash: str = "auto") -> dict:
        """Versions and settings. ImportError where llama_cpp is not installed."""
        import llama_cpp

        self.flash = flash
        info = llama_cpp.llama_print_system_info().decode().strip(" |")
        settings = f"flash attention {flash}, n_batch = n_ubatch = {BATCH}, KV cache in F16; {info}"
        return {"engine": "llama.cpp", "version": f"llama-cpp-python {llama_cpp.__version__}", "settings": settings}

    def load(self, path: str, threads: int, n_ctx: int, kv: str) -> dict:
        """Load weights and make a context; "notes" says what llama.cpp chose."""
        began = time.perf_counter()
        import llama_cpp

        self.close()
        self.lib = llama_cpp
        self.callback = llama_cpp.llama_log_callback(self._note)  # must live as long as it may be called
        llama_cpp.llama_log_set(self.callback, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError("".join(self.log[-4:]).strip() or f"{path}: llama.cpp cannot load it")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, BATCH, BATCH
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv]
        params.flash_attn_type = FLASH[self.flash]
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("".join(self.log[-4:]).strip() or f"{path}: llama.cpp cannot make a context")
        self.memory_ = llama_cpp.llama_get_memory(self.context)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        notes = [line.strip().rpartition(": ")[2] for line in self.log if "Flash Attention" in line]
        self.log.clear()
        return {"seconds": time.perf_counter() - began, "threads": threads, "notes": notes}

    def close(self) -> None:
        """Let the model go."""
        if self.context:
            self.lib.llama_free(self.context)
        if self.model:
            self.lib.llama_model_free(self.model)
        self.model = self.context = None

    def prepare(self, n_prompt: int, n_gen: int, n_depth: int) -> dict:
        """Read the depth, warm up."""
        draw = random.Random(0)
        ids = [draw.randrange(self.n_vocab) for _ in range(n_depth + n_prompt + n_gen)]
        array = (ctypes.c_int32 * len(ids))(*ids)
        self.lib.llama_memory_clear(self.memory_, True)
        steps = lambda lo, hi, size: [self._batch(array, i, min(size, hi - i)) for i in range(lo, hi, size)]
        for batch in steps(0, n_depth, BATCH):
            self._decode(batch)
        self.depth, self.ids = n_depth, array
        self.prompt = steps(n_depth, n_depth + n_prompt, BATCH)
        self.written = steps(n_depth + n_prompt, len(ids), 1)
        self._read(self.written[:1])
        return {}

    def run(self) -> dict:
        """The prepared test once."""
        self.lib.llama_memory_seq_rm(self.memory_, 0, self.depth, -1)
        began = time.perf_counter()
        self._read(self.written)
        return {"seconds": time.perf_counter() - began}

    def memory(self) -> dict:
        """Resident memory."""
        from dataclasses import asdict

        from runtime.resident_memory import resident_memory

        return asdict(resident_memory())

    def first_token(self, path: str, threads: int, ids: list[int], n_ctx: int) -> dict:
        """From nothing to the token that follows ids."""
        began = time.perf_counter()
        self.load(path, threads, n_ctx, "f16")
        array = (ctypes.c_int32 * len(ids))(*ids)
        self._decode(self._batch(array, 0, len(ids)))
        scores = self.lib.llama_get_logits(self.context)[: self.n_vocab]
        token = max(range(self.n_vocab), key=scores.__getitem__)
        return {"seconds": time.perf_counter() - began, "token": token}

    def logits(self, ids: list[int]) -> tuple[dict, bytes]:
        """float32 after each id."""
        self.lib.llama_memory_clear(self.memory_, True)
        parts = []
        for start in range(0, len(ids), BATCH):
            piece = ids[start : start + BATCH]
            batch = self.lib.llama_batch_init(len(piece), 0, 1)
            batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            self._decode(batch)
            parts.append(ctypes.string_at(self.lib.llama_get_logits(self.context), 4 * len(piece) * self.n_vocab))
            self.lib.llama_batch_free(batch)
        return {"shape": [len(ids), self.n_vocab]}, b"".join(parts)

    def _note(self, level: int, text: bytes, _: object) -> None:
        self.log.append(text.decode("utf-8", "replace"))

    def _read(self, written: list) -> None:
        for batch in self.prompt + written:
            self._decode(batch)

    def _batch(self, array: ctypes.Array, start: int, count: int):
        """A batch of tokens whose positions follow what the context holds, logits after the last one."""
        first = ctypes.cast(ctypes.byref(array, 4 * start), ctypes.POINTER(ctypes.c_int32))
        return self.lib.llama_batch_get_one(first, count)

    def _decode(self, batch) -> None:
        if status := self.lib.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode: status = {status}, expected 0")
        self.lib.llama_synchronize(self.context)


if __name__ == "__main__":
    engine = Engine()
    names = ("about", "load", "prepare", "run", "memory", "first_token", "logits")
    serve({name: getattr(engine, name) for name in names})
