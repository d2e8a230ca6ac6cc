"""From a checkpoint to a quantized checkpoint. In: Hugging Face folders, quantized or not, and GGUF. Out: folders of
compressed-tensors, GPTQ, AWQ, bitsandbytes; GGUF.

oneshot             a model, a recipe, a calibration text -> a quantized folder or file     oneshot.py, recipe.py
open_checkpoint     a folder, quantized or not, or a GGUF file: checked, still in its files huggingface.py
convert_to_gguf     the model as one GGUF file, in any type or mix of types                 to_gguf.py
open_executor       where the tasks of a job run: here, in processes, on a Dask cluster     executor.py
explain             what the names of other frameworks mean                                 spellings.py
"""

from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.executor import open_executor
from refquant.pipeline.huggingface import open_checkpoint
from refquant.pipeline.oneshot import Result, oneshot
from refquant.pipeline.recipe import Modifier, Recipe
from refquant.pipeline.spellings import explain
from refquant.pipeline.to_gguf import convert_to_gguf

__all__ = [
    "Checkpoint",
    "Modifier",
    "Recipe",
    "Result",
    "convert_to_gguf",
    "explain",
    "oneshot",
    "open_checkpoint",
    "open_executor",
]
