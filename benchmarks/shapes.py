"""The public configurations whose speed is measured: how wide, how deep, which vocabulary. Weights come from elsewhere.

Source   config.json of Qwen/Qwen2.5-0.5B-Instruct, Qwen/Qwen2.5-1.5B-Instruct and meta-llama/Llama-3.2-1B-Instruct;
         of Qwen/Qwen1.5-MoE-A2.7B-Chat and Qwen/Qwen3-30B-A3B, which are measured with a few of their layers.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Experts:
    """What takes the place of the feed-forward block of every layer; n_ff_shared 0: no shared expert."""

    n_expert: int
    n_used: int
    n_ff: int
    n_ff_shared: int


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
    head_norms: bool = field(default=False, repr=False)  # of every head of q and k
    key_length: int | None = field(default=None, repr=False)  # None: n_embd / n_head
    experts: Experts | None = field(default=None, repr=False)

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.key_length or self.n_embd // self.n_head

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
MIXTURES = {
    shape.name: shape
    for shape in (
        Shape(
            name="qwen1.5-moe-a2.7b",
            n_layer=24,
            n_embd=2048,
            n_ff=5632,
            n_head=16,
            n_head_kv=16,
            experts=Experts(n_expert=60, n_used=4, n_ff=1408, n_ff_shared=5632),
            **QWEN | {"arch": "qwen2moe", "n_ctx": 8192, "tied": False},
        ),
        Shape(
            name="qwen3-30b-a3b",
            n_layer=48,
            n_embd=2048,
            n_ff=6144,
            n_head=32,
            n_head_kv=4,
            key_length=128,
            head_norms=True,
            experts=Experts(n_expert=128, n_used=8, n_ff=768, n_ff_shared=0),
            **QWEN | {"arch": "qwen3moe", "n_ctx": 40960, "tied": False, "biases": False},
        ),
    )
}
