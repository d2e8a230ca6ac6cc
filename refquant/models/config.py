"""The numbers that make one decoder: ModelConfig, read from GGUF metadata and checked.

Llama, Qwen2 and Qwen3 share one computation (forward.py) and differ by values only:

    llama      rope pairs (2i, 2i+1) "norm"     optional rope_freqs.weight (Llama 3); with expert_count: Mixtral
    qwen2      rope pairs (i, i + d/2) "neox"   biases on q, k, v
    qwen3      rope pairs (i, i + d/2) "neox"   RMS norm of every head of q and k before rope
    qwen2moe   as qwen2                         experts, and a shared one beside them
    qwen3moe   as qwen3                         experts

Every number has a range, so that arithmetic on the fields cannot overflow, divide by zero or ask for absurd memory.
Keys that ask for a computation that forward.py does not do are refused (unsupported.py), those that say nothing about
the computation are ignored.

Source   llama.cpp, src/llama-model.cpp load_hparams and src/models/{llama,qwen2,qwen3,qwen2moe,qwen3moe}.cpp.
Differs  yarn_beta_fast and yarn_beta_slow and attention.scale are obeyed for every architecture (llama.cpp reads them
         for others only); an array of head counts must be uniform; a rope dimension below the head dimension is
         allowed for all but llama; qwen2moe may have its output matrix tied.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refquant.errors import GGUFError
from refquant.gguf.strings import Strings
from refquant.models.metadata import Section
from refquant.models.unsupported import refuse_other_computations

if TYPE_CHECKING:
    from refquant.gguf import GGUFFile

ROPE_STYLES = {"llama": "norm", "qwen2": "neox", "qwen3": "neox", "qwen2moe": "neox", "qwen3moe": "neox"}
HEAD_NORMS = ("qwen3", "qwen3moe")
MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
MAX_VOCABULARY = 1 << 22
MAX_CONTEXT = (1 << 31) - 1
MAX_WIDTH = 1 << 24  # of n_embd, n_ff and n_head * head_dim
MAX_EXPERTS = 1024  # llama.cpp's LLAMA_MAX_EXPERTS


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions beyond the trained context are squeezed into it; rope.py has the formulas.

    `factor` is context / original_context and is 1 for kind "none"; the betas are read by "yarn" only. `attn_factor`
    multiplies the rotated q and k for every kind.
    """

    kind: str = "none"  # none | linear | yarn
    factor: float = 1.0
    original_context: int = 0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True, slots=True)
class Mixture:
    """The experts of every layer; experts.py has the formulas."""

    n_expert: int
    n_used: int  # by a token
    n_ff: int  # of one expert
    n_ff_shared: int  # of the expert that every token uses; 0: there is none
    normalized: bool  # the weights of a token's experts sum to 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants of one model. Widths in elements, contexts in tokens."""

    arch: str  # llama | qwen2 | qwen3 | qwen2moe | qwen3moe
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int  # of a query or key head
    head_dim_v: int  # of a value head
    n_vocab: int
    n_ctx_train: int
    rms_eps: float
    rope_dim: int  # the first rope_dim elements of a head rotate, the rest stay
    rope_base: float
    rope_style: str  # norm | neox
    rope_scaling: RopeScaling
    attn_scale: float  # multiplies q . k
    tied_output: bool  # the output matrix is token_embd.weight
    mixture: Mixture | None = None  # experts in place of one feed-forward block

    @property
    def n_group(self) -> int:
        """Query heads that share one key and value head."""
        return self.n_head // self.n_head_kv

    @property
    def n_ff_dense(self) -> int:
        """Width of the feed-forward block that every token passes through; 0 where there are experts alone."""
        return self.n_ff if self.mixture is None else self.mixture.n_ff_shared

    @property
    def q_width(self) -> int:
        return self.n_head * self.head_dim

    @property
    def k_width(self) -> int:
        return self.n_head_kv * self.head_dim

    @property
    def v_width(self) -> int:
        return self.n_head_kv * self.head_dim_v

    @property
    def o_width(self) -> int:
        """What attention hands to its output matrix: the values of every query head."""
        return self.n_head * self.head_dim_v

    @classmethod
    def from_metadata(cls, gguf: "GGUFFile") -> "ModelConfig":
        """The configuration of an open file. Whatever is missing, mistyped or out of range is a GGUFError."""
        arch = gguf.metadata.get("general.architecture")
        if not isinstance(arch, str) or arch not in ROPE_STYLES:
            supported = ", ".join(ROPE_STYLES)
            raise GGUFError(f"{gguf.path}: general.architecture = {str(arch)[:64]!r}, expected one of {supported}")
        keys = Section(gguf.path, gguf.metadata, arch)
        n_layer = keys.whole("block_count", 1, MAX_LAYERS)
        n_embd = keys.whole("embedding_length", 1, MAX_WIDTH)
        n_ctx_train = keys.whole("context_length", 1, MAX_CONTEXT)
        refuse_other_computations(keys, n_embd, n_ctx_train)
        n_head, n_head_kv = _heads(keys, n_layer)
        n_ff = keys.per_layer("feed_forward_length", n_layer, 1, MAX_WIDTH)
        head_dim, head_dim_v, rope_dim = _head_dimensions(keys, n_embd, n_head)
        return cls(
            arch=arch,
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=n_ff,
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=head_dim,
            head_dim_v=head_dim_v,
            n_vocab=_vocabulary(gguf, keys),
            n_ctx_train=n_ctx_train,
            rms_eps=keys.real("attention.layer_norm_rms_epsilon", 1e-20, 1),
            rope_dim=rope_dim,
            rope_base=keys.real("rope.freq_base", 2, 1e12, 10000.0),
            rope_style=ROPE_STYLES[arch],
            rope_scaling=_rope_scaling(keys, n_ctx_train),
            attn_scale=keys.real("attention.scale", 0, 1e3, 0.0) or 1 / math.sqrt(head_dim),
            tied_output="output.weight" not in gguf.tensors,
            mixture=_mixture(keys, n_layer, n_ff),
        )


def _heads(keys: Section, n_layer: int) -> tuple[int, int]:
    """Query heads, and key/value heads, which divide them."""
    n_head = keys.per_layer("attention.head_count", n_layer, 1, MAX_WIDTH)
    n_head_kv = keys.per_layer("attention.head_count_kv", n_layer, 1, n_head, n_head)
    if n_head % n_head_kv:
        raise keys.error("attention.head_count_kv", n_head_kv, f"a divisor of attention.head_count = {n_head}")
    return n_head, n_head_kv


def _head_dimensions(keys: Section, n_embd: int, n_head: int) -> tuple[int, int, int]:
    """Elements of a key head, of a value head, and how many of a key head rotate (all of them in a llama)."""
    if ("attention.key_length" not in keys or "attention.value_length" not in keys) and n_embd % n_head:
        want = f"a divisor of embedding_length = {n_embd} where key_length or value_length is absent"
        raise keys.error("attention.head_count", n_head, want)
    head_dim = keys.whole("attention.key_length", 1, MAX_WIDTH // n_head, n_embd // n_head)
    head_dim_v = keys.whole("attention.value_length", 1, MAX_WIDTH // n_head, n_embd // n_head)
    rope_dim = keys.whole("rope.dimension_count", 2, head_dim, head_dim)
    if rope_dim % 2:
        raise keys.error("rope.dimension_count", rope_dim, "an even number")
    if keys.prefix == "llama" and rope_dim != head_dim:
        raise keys.error("rope.dimension_count", rope_dim, f"the head dimension {head_dim}")
    return head_dim, head_dim_v, rope_dim


def _mixture(keys: Section, n_layer: int, n_ff: int) -> Mixture | None:
    """The experts, which the architectures of that name must have, a llama may have and others never do."""
    if keys.prefix not in ("llama", "qwen2moe", "qwen3moe"):
        return None
    fewest = 0 if keys.prefix == "llama" else 1
    n_expert = keys.whole("expert_count", fewest, MAX_EXPERTS, 0 if fewest == 0 else None)
    n_used = keys.per_layer("expert_used_count", n_layer, min(n_expert, 1), n_expert, None if n_expert else 0)
    if n_expert == 0:
        return None
    own = shared = 0
    if keys.prefix != "llama":
        own = keys.per_layer("expert_feed_forward_length", n_layer, 0, MAX_WIDTH, 0)
        own = own or max(1, n_ff // n_used)
    if keys.prefix == "qwen2moe":
        shared = keys.whole("expert_shared_feed_forward_length", 0, MAX_WIDTH, 0) or n_ff
    return Mixture(n_expert, n_used, own or n_ff, shared, normalized=keys.prefix != "qwen2moe")


def _vocabulary(gguf: "GGUFFile", keys: Section) -> int:
    """Rows of token_embd.weight, which the declared sizes (vocab_size, the token list) must equal where present."""
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise GGUFError(f"{gguf.path}: token_embd.weight is missing or not a matrix, expected (vocabulary, n_embd)")
    rows = embedding.shape[0]
    if not 1 <= rows <= MAX_VOCABULARY:
        raise GGUFError(f"{gguf.path}: token_embd.weight has {rows} rows, expected 1..{MAX_VOCABULARY}")
    declared = keys.whole("vocab_size", 1, MAX_VOCABULARY, rows)
    if declared != rows:
        raise keys.error("vocab_size", declared, f"{rows}, the rows of token_embd.weight")
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", [""] * rows)
    if not isinstance(tokens, list | Strings) or len(tokens) != rows:
        got = f"{len(tokens)} strings" if isinstance(tokens, list | Strings) else type(tokens).__name__
        raise GGUFError(f"{gguf.path}: tokenizer.ggml.tokens = {got}, expected {rows}, the rows of token_embd.weight")
    return rows


def _rope_scaling(keys: Section, n_ctx_train: int) -> RopeScaling:
    """`rope.scaling.*`, or `rope.scale_linear` of old files. A factor of 0 means "not set", as in llama.cpp."""
    kind = keys.text("rope.scaling.type", ("none", "linear", "yarn"), "linear")
    old_or_new = "rope.scaling.factor" if "rope.scaling.factor" in keys else "rope.scale_linear"
    factor = keys.real(old_or_new, 0, 1e6, 1.0) or 1.0
    scaling = RopeScaling(
        kind=kind if kind == "yarn" or factor != 1 else "none",
        factor=1.0 if kind == "none" else factor,
        original_context=keys.whole("rope.scaling.original_context_length", 1, MAX_CONTEXT, n_ctx_train),
        attn_factor=keys.real("rope.scaling.attn_factor", 1e-3, 1e3, 1.0),
        beta_fast=keys.real("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0),
        beta_slow=keys.real("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0),
    )
    if scaling.beta_fast < scaling.beta_slow:
        raise keys.error("rope.scaling.yarn_beta_fast", scaling.beta_fast, f"at least beta_slow = {scaling.beta_slow}")
    return scaling
