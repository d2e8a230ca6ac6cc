"""This runtime as a worker process: load, measure, logits. The requests are those of llama_worker.py."""

import platform
import time
from importlib.metadata import version

from benchmarks.serving import serve


class Engine:
    """One model at a time."""

    def __init__(self):
        self.model = self.run_ = None

    def about(self) -> dict:
        """Versions and settings."""
        from runtime.simd.tier import TIER

        packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "llvmlite"))
        version_ = f"Python {platform.python_version()}, {packages}"
        return {"engine": "refquant", "version": version_, "settings": f"SIMD tier {TIER}, KV cache in F16"}

    def load(self, path: str, threads: int, n_ctx: int, kv: str) -> dict:
        """Open a model; seconds include whatever has to be compiled."""
        began = time.perf_counter()
        from runtime import Model

        if self.model is not None:
            self.run_ = self.model.close()
        self.model = Model.load(path, n_ctx=n_ctx, threads=threads, kv_dtype=kv)
        return {"seconds": time.perf_counter() - began, "threads": self.model.threads}

    def prepare(self, n_prompt: int, n_gen: int, n_depth: int) -> dict:
        """Read the depth, warm up."""
        from runtime.speed_tests import SpeedRun, SpeedTest

        self.run_ = None  # lets the cache of the test before go
        self.run_ = SpeedRun(self.model, SpeedTest(n_prompt, n_gen, n_depth))
        return {}

    def run(self) -> dict:
        """The prepared test once."""
        return {"seconds": self.run_.seconds()}

    def memory(self) -> dict:
        """Resident memory."""
        from dataclasses import asdict

        from runtime.resident_memory import resident_memory

        return asdict(resident_memory())

    def first_token(self, path: str, threads: int, ids: list[int], n_ctx: int) -> dict:
        """From nothing to the token that follows ids."""
        began = time.perf_counter()
        self.load(path, threads, n_ctx, "f16")
        token = next(self.model.generate(ids, 1, temperature=0, stop_at_eog=False))
        return {"seconds": time.perf_counter() - began, "token": token}

    def logits(self, ids: list[int]) -> tuple[dict, bytes]:
        """float32 after each id."""
        scores = self.model.logits(ids)
        return {"shape": scores.shape}, scores.tobytes()


if __name__ == "__main__":
    engine = Engine()
    names = ("about", "load", "prepare", "run", "memory", "first_token", "logits")
    serve({name: getattr(engine, name) for name in names})
