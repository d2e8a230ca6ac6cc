"""From a checkpoint to a quantized checkpoint: Hugging Face folders in; compressed-tensors, GPTQ, AWQ, GGUF ... out.

open_checkpoint     a folder of safetensors, checked, its tensors still in their files      huggingface.py
convert_to_gguf     the folder as one GGUF file, in any type or mix of types                to_gguf.py
"""

from refquant.pipeline.huggingface import Checkpoint, open_checkpoint
from refquant.pipeline.oneshot import Result, oneshot
from refquant.pipeline.recipe import Modifier, Recipe
from refquant.pipeline.spellings import explain
from refquant.pipeline.to_gguf import convert_to_gguf

__all__ = ["Checkpoint", "Modifier", "Recipe", "Result", "convert_to_gguf", "explain", "oneshot", "open_checkpoint"]
