"""Make the bundled model from the float32 GGUF of its checkpoint.

    python -m runtime.bundled.make tiny-qwen2-F32.gguf [OUT.gguf]

Every matrix becomes Q8_0; norms and biases stay F32, as llama.cpp leaves them. Metadata is copied, apart from the
entries of `CARD`. The output depends on the input alone: equal bytes in, equal bytes out.
"""

import sys
from pathlib import Path

import numpy as np

from refquant import gguf

MOSTLY_Q8_0 = 7  # llama.cpp's LLAMA_FTYPE_MOSTLY_Q8_0, the value of general.file_type

CARD = {  # key: (type, value)
    "general.name": ("str", "refquant tiny chat (Qwen2 28M)"),
    "general.description": (
        "str",
        "small chat model for tests and demonstrations, trained from scratch on free documentation",
    ),
    "general.license": ("str", "apache-2.0"),
    "general.file_type": ("u32", MOSTLY_Q8_0),
}


def quantized(tensor: gguf.Tensor) -> tuple[np.ndarray, str]:
    """(data, type name) of a float32 tensor: (rows, n_in) as Q8_0 row bytes, everything else as it is."""
    if tensor.data.ndim == 2:
        return gguf.quantize(tensor.data, "Q8_0"), "Q8_0"
    return tensor.data, tensor.type


def make(source: Path, out: Path) -> None:
    """Write the Q8_0 form of the float32 model `source` to `out`."""
    with gguf.open(source) as model:
        metadata = model.metadata | {key: value for key, (_, value) in CARD.items()}
        types = model.types | {key: kind for key, (kind, _) in CARD.items()}
        tensors = {name: quantized(tensor) for name, tensor in model.tensors.items()}
        gguf.write(out, metadata, tensors, types=types)


if __name__ == "__main__":
    source, *rest = map(Path, sys.argv[1:])
    make(source, *rest or [Path(__file__).with_name("tiny-chat-Q8_0.gguf")])
