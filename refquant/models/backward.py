"""The forward pass with its way back: what a loss on the logits says about the inputs of every matrix.

    logits, pull = model.run(ids, linears)          dx = pull(dlogits)

forward.py spelled once more for one whole sequence, every step paired with its pullback (pullbacks.py); `pull` goes
through them in reverse. Where x is used twice, by a branch and by what the branch is added to, its gradients add:

    x + f(x)      dx = dy + pull_f(dy)

linears    {tensor name: x -> (y, pullback)} stands in for products with matrices of the file: a quantized matrix, an
           adapter beside it. Its pullback keeps the gradients it wants and returns dx. Bias and scale stay the file's.
Frozen     everything else: no gradient of a norm, a bias or the embedding is made.
Memory     all activations of all layers, about tokens * n_layer * (8 n_embd + 5 n_ff + n_head * tokens) numbers.
Models     Llama, Qwen2 and Qwen3 without experts.
Differs    nothing: its logits are forward.py's up to the rounding of a sum.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import RangeError, ShapeError, UnsupportedError
from refquant.models import pullbacks, rope
from refquant.models.config import ModelConfig
from refquant.models.pullbacks import Pullback
from refquant.models.tensors import check_tensors, model_tensors
from refquant.models.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from refquant.gguf import GGUFFile

    Linear = Callable[[np.ndarray], tuple[np.ndarray, Pullback]]


class DifferentiableModel:
    """A model of an open GGUF file, which must stay open. dtype: np.float32 or np.float64, of everything.

    Raises GGUFError for a file that is not a supported model, UnsupportedError for one with experts.
    """

    def __init__(self, gguf: "GGUFFile", dtype: type[np.floating] = np.float32):
        self.config, self.dtype = ModelConfig.from_metadata(gguf), np.dtype(dtype)
        if self.config.mixture is not None:
            raise UnsupportedError("DifferentiableModel: the model has experts, expected one without")
        check_tensors(gguf, self.config)
        self.weights = Weights(model_tensors(gguf, self.config), self.dtype, keep=True)
        self._inv_freq = rope.inv_freq(self.config, self.weights.optional("rope_freqs.weight"))

    def run(
        self, ids: Sequence[int] | np.ndarray, linears: "Mapping[str, Linear] | None" = None
    ) -> tuple[np.ndarray, Pullback]:
        """(logits (tokens, n_vocab), pullback to the embedded tokens (tokens, n_embd)) of one sequence.

        Raises ShapeError, RangeError for what is not a sequence of token ids.
        """
        c, W, linears = self.config, self.weights, linears or {}
        ids = np.asarray(ids)
        if ids.ndim != 1 or not ids.size:
            raise ShapeError(f"DifferentiableModel.run: ids.shape = {ids.shape}, expected (tokens,), at least one")
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= c.n_vocab:
            raise RangeError(f"DifferentiableModel.run: ids are not all integers in 0..{c.n_vocab - 1}")
        tables = rope.table(self._inv_freq, np.arange(len(ids)), rope.mscale(c))
        cos, sin = (t.astype(self.dtype) for t in tables)
        x, pulls = W.rows("token_embd.weight", ids), []
        for layer in range(c.n_layer):
            for branch in (self._attention, self._feed_forward):
                y, pull = branch(f"blk.{layer}", x, linears, cos, sin)
                x = x + y
                pulls.append(pull)
        h, pull_norm = pullbacks.rms_norm(x, W["output_norm.weight"], c.rms_eps)
        logits, pull_output = self._linear("output", h, linears, "token_embd.weight" if c.tied_output else None)

        def pull(dlogits: np.ndarray) -> np.ndarray:
            dx = pull_norm(pull_output(dlogits))
            for pull_branch in reversed(pulls):
                dx = dx + pull_branch(dx)
            return dx

        return logits, pull

    def _attention(
        self, blk: str, x: np.ndarray, linears: "Mapping[str, Linear]", cos: np.ndarray, sin: np.ndarray
    ) -> tuple[np.ndarray, Pullback]:
        c, tokens = self.config, len(x)
        h, pull_norm = pullbacks.rms_norm(x, self.weights[f"{blk}.attn_norm.weight"], c.rms_eps)
        heads, pulls = [], []
        for part, count in (("q", c.n_head), ("k", c.n_head_kv), ("v", c.n_head_kv)):
            y, pull_linear = self._linear(f"{blk}.attn_{part}", h, linears)
            y, chain = y.reshape(tokens, count, -1), [pull_linear, lambda dy: dy.reshape(tokens, -1)]
            gain = self.weights.optional(f"{blk}.attn_{part}_norm.weight")
            if gain is not None:
                y, pull = pullbacks.rms_norm(y, gain, c.rms_eps)
                chain.append(pull)
            if part != "v":
                y, pull = pullbacks.rotate(y, cos, sin, c.rope_style)
                chain.append(pull)
            heads.append(y)
            pulls.append(chain)
        mixed, pull_attention = pullbacks.attend(*heads, c.attn_scale)
        y, pull_output = self._linear(f"{blk}.attn_output", mixed, linears)

        def pull(dy: np.ndarray) -> np.ndarray:
            dh = 0
            for chain, d in zip(pulls, pull_attention(pull_output(dy))):
                for step in reversed(chain):
                    d = step(d)
                dh = dh + d
            return pull_norm(dh)

        return y, pull

    def _feed_forward(
        self, blk: str, x: np.ndarray, linears: "Mapping[str, Linear]", cos: np.ndarray, sin: np.ndarray
    ) -> tuple[np.ndarray, Pullback]:
        h, pull_norm = pullbacks.rms_norm(x, self.weights[f"{blk}.ffn_norm.weight"], self.config.rms_eps)
        gate, pull_gate = self._linear(f"{blk}.ffn_gate", h, linears)
        up, pull_up = self._linear(f"{blk}.ffn_up", h, linears)
        opened, pull_silu = pullbacks.silu(gate)
        y, pull_down = self._linear(f"{blk}.ffn_down", opened * up, linears)

        def pull(dy: np.ndarray) -> np.ndarray:
            d = pull_down(dy)  # of opened * up
            return pull_norm(pull_gate(pull_silu(d * up)) + pull_up(d * opened))

        return y, pull

    def _linear(
        self, name: str, x: np.ndarray, linears: "Mapping[str, Linear]", matrix: str | None = None
    ) -> tuple[np.ndarray, Pullback]:
        """scale * (W x) + bias, W by `linears` or by the file."""
        matrix = matrix or f"{name}.weight"
        y, pull = linears[matrix](x) if matrix in linears else pullbacks.linear(x, self.weights[matrix])
        scale, bias = self.weights.optional(f"{name}.scale"), self.weights.optional(f"{name}.bias")
        y = y if scale is None else y * scale
        y = y if bias is None else y + bias
        return y, pull if scale is None else lambda dy: pull(dy * scale)
