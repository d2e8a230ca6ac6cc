"""What a benchmark says of a model: a name, its size, and how many bytes it reads to write one token.

weights   every tensor once, but of token_embd a row only, unless the output is tied to it, and of experts those that a
          token passes through
KV cache  keys and values of all layers at every position before: 2 bytes each in f16, 4 in f32, 34 for 32 in q8_0
"""

import math
from collections import Counter

from refquant.gguf import GGUFFile
from refquant.memory import cache_per_token
from refquant.models import ModelConfig

EMBEDDING = "token_embd.weight"
GUESSED = 1024  # a bit of general.file_type: the writer did not know
FILE_TYPES = {  # general.file_type: enum llama_ftype of llama.cpp, in the spelling of llama-quantize
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}


def parameters(gguf: GGUFFile) -> int:
    """Weights in a file, however many bits they have."""
    return sum(math.prod(tensor.shape) for tensor in gguf.tensors.values())


def tensor_bytes(gguf: GGUFFile) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in gguf.tensors.values())


def model_type(gguf: GGUFFile) -> str:
    """Architecture, parameters and mix of types, such as "qwen2 1.5B Q4_K_M"; without a known mix, its largest type."""
    count = parameters(gguf)
    size = f"{count / 1e9:.1f}B" if count >= 9.5e8 else f"{count / 1e6:.0f}M"
    noted = gguf.metadata.get("general.file_type")
    mix = FILE_TYPES.get(noted & ~GUESSED) if isinstance(noted, int) else None
    if mix is None:
        shares = Counter()
        for tensor in gguf.tensors.values():
            shares[tensor.type] += tensor.nbytes
        mix = shares.most_common(1)[0][0]
    return f"{gguf.metadata['general.architecture']} {size} {mix}"


def weight_traffic(gguf: GGUFFile, config: ModelConfig) -> int:
    """Bytes of weights, as they lie in the file, that are read for one token."""
    read = [t for t in gguf.tensors.values() if config.tied_output or t.name != EMBEDDING]
    if (m := config.mixture) is None:
        return sum(t.nbytes for t in read)
    return sum(t.nbytes * m.n_used // m.n_expert if "_exps." in t.name else t.nbytes for t in read)


def cache_bytes(config: ModelConfig, positions: float, kv_dtype: str) -> float:
    """Bytes of keys and values at `positions` positions, all of which are read for the next token."""
    return positions * cache_per_token(config, kv_dtype)
