"""Resident memory of both engines with a model loaded and used, and how much of it the layers take.

    ratio = (resident - resident with one layer) / (tensors - tensors with one layer + KV of the other layers)

An engine that keeps one copy of the weights comes out near 1. "Resident" is the peak since the process began, loading
included, pages of the mapped file among it.
"""

from dataclasses import dataclass

from refquant.memory import human
from runtime.resident_memory import ResidentMemory


@dataclass(frozen=True, slots=True)
class Footprint:
    """One engine with one model. Bytes."""

    model: str
    engine: str
    tensor_bytes: int
    cache_bytes: int  # of the context that the tests needed
    loaded: ResidentMemory
    used: ResidentMemory  # after the tests
    one_layer: ResidentMemory | None = None  # the same tests, the same vocabulary, one layer
    one_layer_tensor_bytes: int = 0
    one_layer_cache_bytes: int = 0

    @property
    def ratio(self) -> float | None:
        """Resident bytes per byte of weights and cache, both less those of one layer; None if not known."""
        if self.one_layer is None or None in (self.used.peak, self.one_layer.peak):
            return None
        needed = self.tensor_bytes - self.one_layer_tensor_bytes + self.cache_bytes - self.one_layer_cache_bytes
        return (self.used.peak - self.one_layer.peak) / needed if needed > 0 else None

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        known = lambda amount: "-" if amount is None else human(amount)
        return (
            self.engine,
            human(self.tensor_bytes),
            human(self.cache_bytes),
            known(self.loaded.peak),
            known(self.used.peak),
            known(self.used.anonymous),
            known(self.used.file),
            known(self.one_layer.peak if self.one_layer else None),
            "-" if self.ratio is None else f"{self.ratio:.2f}",
        )
