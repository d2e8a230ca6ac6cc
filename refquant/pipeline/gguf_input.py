"""A GGUF file as the input of a job: its tensors by Hugging Face's names, its metadata as a config.json.

    open_gguf("model.gguf")        what open_checkpoint gives for a path that is a file

Tensors   to_gguf.py backwards: rows of q and k of a llama go back to their places, stacked experts are taken apart.
          Block types are decoded when they are read (float32); their codes can be moved where a layout holds them.
Config    proved: read again by architecture.py it gives the ModelConfig that the file itself gives.
Rope      the divisors of Llama 3 (rope_freqs.weight) are known by what they are: those of LLAMA3, or refused.
Tokenizer tokenizer_files.py writes it as a tokenizer.json. For GGUF output its metadata are copied as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refquant import gguf
from refquant.errors import UnsupportedError
from refquant.gguf import FORMATS, GGUFFile, Tensor
from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.catalogue import Record
from refquant.layouts.linear import Linear
from refquant.models import ModelConfig, check_tensors
from refquant.pipeline import architecture, tokenizer_files
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.rows import heads_to_permute, reordered, restored

KINDS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}
CLASSES = {"llama": "Llama", "mixtral": "Mixtral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
CLASSES |= {"qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe"}
LLAMA3 = tuple(  # of Llama 3.1 and of 3.2
    {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 8192}
    for factor in (8.0, 32.0)
)
_DTYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Rows:
    """One matrix of a tensor of GGUF in the order of Hugging Face, float32, decoded when rows of it are asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: Tensor, index: int | None, heads: int, shape: tuple[int, ...]):
        self._tensor, self._index, self._heads, self.shape = tensor, index, heads, shape

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Weights."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """As the file stores them."""
        return self._stored().nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: object) -> np.ndarray:
        if self._heads or self.ndim == 1 or not isinstance(key, slice):
            return self._decoded(slice(None))[key]
        return self._decoded(key)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def record(self) -> Record | None:
        """Codes and scales, where a layout has them."""
        name = f"gguf-{self._tensor.type}"
        if name not in catalogue.LAYOUTS or self.ndim != 2:
            return None
        record = catalogue.unpack({"weight": self._stored()}, name)
        if not self._heads:
            return record
        return reordered(record, self._heads, restored) if isinstance(record, Linear) else None

    def _stored(self) -> np.ndarray:
        return self._tensor.data if self._index is None else self._tensor.data[self._index]

    def _decoded(self, rows: slice) -> np.ndarray:
        data = self._stored()
        data = data if data.ndim == 1 else data[rows]
        x = gguf.dequantize(np.ascontiguousarray(data), self._tensor.type)
        x = x.reshape(-1, *self.shape[1:])
        return restored(x, self._heads) if self._heads else x


def open_gguf(path: Path) -> Checkpoint:
    """Open and check a file. Raises GGUFError, UnsupportedError (a model that has no such folder), QuantError."""
    file = gguf.open(path)
    try:
        model = ModelConfig.from_metadata(file)
        check_tensors(file, model)
        config = _config(file, model)
        tensors, warning = _tensors(file, model, config["model_type"])
        texts = tokenizer_files.files(file)
        vocabulary = {k: (file.types[k], v) for k, v in file.metadata.items() if k.startswith("tokenizer.")}
    except BaseException:
        file.close()
        raise
    files = {name: Path(file.tensors[source].path).name for name, (source, _) in tensors.items()}
    found = {name: tensor for name, (_, tensor) in tensors.items()}
    warnings = (warning,) if warning else ()
    return Checkpoint(Path(path), config, model, found, files, (), texts, warnings, vocabulary, file)


def _tensors(
    file: GGUFFile, model: ModelConfig, kind: str
) -> tuple[dict[str, tuple[str, safetensors_file.Tensor]], str]:
    """{name of Hugging Face: (name of GGUF, tensor)}, and a warning where there are block types."""
    found, types = {}, {}
    for name, tensor in file.tensors.items():
        names = architecture.sources(name, model, kind)
        if not names:
            if name != "rope_freqs.weight":
                raise UnsupportedError(f"{file.path}: tensor {name[:200]!r} has no name in a folder of {kind}")
            continue
        stacked = len(tensor.shape) == 3
        shape = tensor.shape[1:] if stacked else tensor.shape
        shape = (1, *shape[-1:]) if names[0].endswith("shared_expert_gate.weight") else shape
        heads = heads_to_permute(name, model)
        for i, one in enumerate(names):
            rows = Rows(tensor, i if stacked else None, heads, shape)
            found[one] = name, safetensors_file.Tensor(_DTYPES.get(tensor.type, "F16"), rows)
        if not FORMATS[tensor.type].is_scalar:
            types[tensor.type] = types.get(tensor.type, 0) + 1
    counted = ", ".join(f"{count} tensors of {type}" for type, count in types.items())
    said = f"{file.path}: is quantized already ({counted}): rounding its weights again adds to their errors"
    return found, said if types else ""


def _config(file: GGUFFile, model: ModelConfig) -> dict[str, Any]:
    """config.json. Raises UnsupportedError where the folder would be another model."""
    kind = KINDS[model.arch] if model.mixture is None or model.arch != "llama" else "mixtral"
    metadata = file.metadata
    weights = next((t.type for n, t in file.tensors.items() if n.endswith("attn_q.weight")), "F16")
    config: dict[str, Any] = {
        "architectures": [f"{CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        "vocab_size": model.n_vocab,
        "hidden_size": model.n_embd,
        "intermediate_size": model.n_ff,
        "num_hidden_layers": model.n_layer,
        "num_attention_heads": model.n_head,
        "num_key_value_heads": model.n_head_kv,
        "hidden_act": "silu",
        "max_position_embeddings": model.n_ctx_train,
        "rms_norm_eps": _shortest(model.rms_eps),
        "rope_theta": _shortest(model.rope_base),
        "tie_word_embeddings": model.tied_output,
        "torch_dtype": _NAMES.get(weights, "float16"),
    }
    if kind.startswith("qwen3") or model.head_dim * model.n_head != model.n_embd:
        config["head_dim"] = model.head_dim
    for name in ("bos", "eos"):
        if f"tokenizer.ggml.{name}_token_id" in metadata:
            config[f"{name}_token_id"] = int(metadata[f"tokenizer.ggml.{name}_token_id"])
    config |= _rope_scaling(file, model) | _mixture(model, kind)
    said = architecture.metadata(file.path, config)
    values = {key: float(np.float32(value)) if kind == "f32" else value for key, (kind, value) in said.items()}
    again = ModelConfig.from_metadata(_Values(file, values))
    if again != model:
        differing = [f for f in model.__slots__ if getattr(again, f) != getattr(model, f)]
        got = ", ".join(f"{f} {getattr(model, f)}" for f in differing)
        raise UnsupportedError(f"{file.path}: {got}: no config.json of {kind} says that")
    return config


class _Values:
    """A file with other metadata."""

    def __init__(self, file: GGUFFile, metadata: Mapping[str, Any]):
        self.path, self.tensors, self.metadata = file.path, file.tensors, metadata


def _shortest(value: float) -> float:
    """The number of fewest digits that float32 stores as `value`: 1e-05."""
    return float(str(np.float32(value)))


def _rope_scaling(file: GGUFFile, model: ModelConfig) -> dict[str, Any]:
    if "rope_freqs.weight" in file.tensors:
        divisors = np.asarray(file.tensors["rope_freqs.weight"].data)
        for said in LLAMA3:
            sizes = {"rope_theta": model.rope_base, "head_dim": model.head_dim, "hidden_size": model.q_width}
            sizes["num_attention_heads"] = model.n_head
            known = architecture.rope_divisors(file.path, sizes | {"rope_scaling": said})
            if known.shape == divisors.shape and np.allclose(known, divisors, rtol=1e-5):
                return {"rope_scaling": dict(said)}
        raise UnsupportedError(f"{file.path}: rope_freqs.weight, expected the divisors of Llama 3.1 or 3.2")
    scaling = model.rope_scaling
    if scaling.kind == "none":
        return {}
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": _shortest(scaling.factor)}
    if scaling.kind == "yarn":
        found["original_max_position_embeddings"] = scaling.original_context
        plain = type(scaling)()
        for ours, theirs in (
            ("beta_fast", "beta_fast"),
            ("beta_slow", "beta_slow"),
            ("attn_factor", "attention_factor"),
        ):
            if getattr(scaling, ours) != getattr(plain, ours):
                found[theirs] = _shortest(getattr(scaling, ours))
    return {"rope_scaling": found}


def _mixture(model: ModelConfig, kind: str) -> dict[str, Any]:
    mixture = model.mixture
    if mixture is None:
        return {}
    if kind == "mixtral":
        return {"num_local_experts": mixture.n_expert, "num_experts_per_tok": mixture.n_used}
    found = {"num_experts": mixture.n_expert, "num_experts_per_tok": mixture.n_used}
    found |= {"moe_intermediate_size": mixture.n_ff, "norm_topk_prob": mixture.normalized}
    return found | ({"shared_expert_intermediate_size": mixture.n_ff_shared} if mixture.n_ff_shared else {})
