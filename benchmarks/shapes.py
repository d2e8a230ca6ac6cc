"""The public configurations whose speed is measured: how wide, how deep, which vocabulary. Weights come from elsewhere.

Source   config.json of Qwen/Qwen2.5-0.5B-Instruct, Qwen/Qwen2.5-1.5B-Instruct and meta-llama/Llama-3.2-1B-Instruct.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One model without its weights. Widths in elements; `bpe_tokens` of the n_vocab tokens are bytes and merges."""

    name: str
    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    bpe_tokens: int
    n_ctx: int
    rope_base: float
    rms_eps: float
    tied: bool
    biases: bool  # on q, k and v
    llama3_rope: bool  # rope_freqs.weight: factor 32, low 1, high 4, original context 8192

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.n_embd // self.n_head

    @property
    def n_group(self) -> int:
        """Query heads that share a key head."""
        return self.n_head // self.n_head_kv


QWEN = {
    "arch": "qwen2",
    "n_vocab": 151936,
    "bpe_tokens": 151643,
    "n_ctx": 32768,
    "rope_base": 1000000.0,
    "rms_eps": 1e-6,
    "tied": True,
    "biases": True,
    "llama3_rope": False,
}
SHAPES = {
    shape.name: shape
    for shape in (
        Shape(name="qwen2.5-0.5b", n_layer=24, n_embd=896, n_ff=4864, n_head=14, n_head_kv=2, **QWEN),
        Shape(name="qwen2.5-1.5b", n_layer=28, n_embd=1536, n_ff=8960, n_head=12, n_head_kv=2, **QWEN),
        Shape(
            name="llama-3.2-1b",
            arch="llama",
            n_layer=16,
            n_embd=2048,
            n_ff=8192,
            n_head=32,
            n_head_kv=8,
            n_vocab=128256,
            bpe_tokens=128000,
            n_ctx=131072,
            rope_base=500000.0,
            rms_eps=1e-5,
            tied=True,
            biases=False,
            llama3_rope=True,
        ),
    )
}
