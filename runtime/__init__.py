"""GGUF models on a CPU from pip alone: `from runtime import Model`, or `python -m runtime.chat model.gguf`.

The kernels are compiled by Numba for the CPU at hand the first time they run, and kept on disk for the next time.
"""

__all__ = ["Model", "Session"]


def __getattr__(name: str):
    # `python -m runtime.chat --help` must not wait for what a model needs.
    if name == "Model":
        from runtime.model import Model

        return Model
    if name == "Session":
        from runtime.session import Session

        return Session
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
