"""The scales of whole tensors that NVFP4 has: shared by layers that are multiplied at once, and of inputs.

    q, k, v        one matrix product in vLLM and TensorRT-LLM, with one global scale; so are gate and up.
                   shared(part, layer) = max|W| of all that have the format, and W is rounded with a row of that number
                   below it, which every method scales along and `without_row` drops
    inputs         g = 2688 / max|X| over the calibration text, before rounding: `input_global_scale`, float32 (1,).
                   Blocks of 16 get their E4M3 scales when the model runs. An expert that no token reached has g = 1

Source   compressed_tensors 0.19, quantization/utils/helpers.py (generate_gparam), quant_scheme.py (NVFP4).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from refquant import nvfp4
from refquant.pipeline.part import Part
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

INPUT = "input_global_scale"
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))


def is_global(scheme: Scheme | None) -> bool:
    """Whether a format has a scale of the whole tensor."""
    return scheme is not None and isinstance(scheme.rule, nvfp4.Rule) and scheme.rule.stored != "none"


def shared(part: Part, short: str) -> np.float32:
    """max|W| of a layer, by its short name, and of those that are multiplied with it and have its format."""
    start, _, last = short.rpartition(".")
    together = next((names for names in _FUSED if last in names), (last,))
    layers = [f"{start}.{name}.weight" for name in together if f"{start}.{name}.weight" in part.names]
    scheme = part.plan[part.layer(f"{short}.weight")][1].scheme
    same = [n for n in layers if part.layer(n) and part.plan[part.layer(n)][1].scheme == scheme]
    return max((np.abs(part.weight(name)).max() for name in same or [f"{short}.weight"]), default=np.float32(0))


def with_row(W: np.ndarray, peak: np.float32) -> np.ndarray:
    """W (out, in) and a row of `peak` in every column: some methods leave columns out whose inputs are 0."""
    return np.concatenate([W, np.full((1, W.shape[1]), peak, np.float32)])


def without_row(tensor: QuantizedTensor) -> QuantizedTensor:
    """What was made of `with_row`, without the last row."""
    shape = (tensor.shape[0] - 1, tensor.shape[1])
    return replace(tensor, codes=tensor.codes[:-1], scale=tensor.scale[:-1], shape=shape)


def of_inputs(peak: np.float32) -> np.ndarray:
    """`input_global_scale` for inputs of at most `peak`."""
    with np.errstate(all="ignore"):
        g = nvfp4.REACH / np.float32(peak)
    return np.array([g if np.isfinite(g) else 1], np.float32)


def merged(peaks: Mapping[str, np.float32], more: Mapping[str, np.float32]) -> dict[str, np.float32]:
    """The larger of both, by layer."""
    return {name: max(peaks.get(name, np.float32(0)), more.get(name, np.float32(0))) for name in peaks | more}
