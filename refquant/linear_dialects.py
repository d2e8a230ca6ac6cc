"""How other people's code computes linear formats, as values of affine.Rule. h = 2^(bits-1), n = 2^bits - 1.

    dialect              range                     scale                          codes                flat group: scale
    gptq                 sym, no x < 0: 0..amax    range / n                      default              2 / n
    awq                  lo..hi, 0 or not          max(range, 1e-5) / n           default              1e-5 / n
                         sym: amax                 max(amax, 1e-5) / (h-1)        default              1e-5 / (h-1)
    smoothquant          amax                      max(amax, 1e-5) / (h-1)        default              1e-5 / (h-1)
    compressed-tensors   default                   default                        round(x / s + zero)  2^-23
    torchao              default                   at least 2^-126                x * (1 / s)          2^-126
    torch.ao             default                   at least 2^-23                 x * (1 / s)          2^-23
    quanto               lo..hi, 0 or not          range / n; sym: amax / (h-1)   (x - lo) / s         0
    tinygemm             lo..hi, 0 or not          at least 1e-6                  (x - lo) / s         1e-6
    hqq                  lo..hi, 0 or not          1 / m, m = min(n / range, 2e4) round(x * m + zero)  1
    onnx, onnxruntime    default                   default                        default              1 / n, 1
    bitsandbytes         amax                      1 / m, m = (1 / amax) * (h-1)  x * m                0

gptq      IST-DASLab/gptq quant.py, gptqmodel 7.7 Quantizer.find_params. A symmetric group without a negative weight
          gets the range 0..amax and still zero = h, so that its upper half clips: amax decodes to 7/15 amax at 4 bits.
          The default, which mirrors always, is the repair. Codes here are signed with int4: the code of a file less h.
awq       AutoAWQ 0.2.9 pseudo_quantize_tensor. A group that does not reach 0 has its zero point clipped to 0 or n.
compressed-tensors   0.19 calculate_qparams, _quantize. clip, then round: the same for whole bounds. zero_point =
          round(clip(qmin - lo / s)). Its scale has the dtype of the model: with bf16 weights add the word bf16.
torchao   0.18 choose_qparams_affine, quantize_affine with MappingType SYMMETRIC / ASYMMETRIC and float32 input;
          SYMMETRIC_NO_CLIPPING_ERR is the word covering. eps defaults to the smallest normal number.
torch.ao  MinMaxObserver with eps = 2^-23 and torch.quantize_per_tensor, which multiplies by the reciprocal.
quanto    optimum-quanto 0.2.7: MaxOptimizer, AbsmaxOptimizer, quantize_affine.
tinygemm  torchao _choose_qparams_affine_tinygemm, eps 1e-6.
hqq       hqq 0.2.8 Quantizer.quantize(optimize=False, round_zero=False): a range of at most 1e-4 is flat.
onnx      DynamicQuantizeLinear of ONNX's own reference, 1.22, and of onnxruntime 1.27: they differ in x = 0 only.
bitsandbytes   int8_vectorwise_quant; llm_int8.py has the format whole, with its statistics amax instead of a scale.
"""

from collections.abc import Mapping

import numpy as np

from refquant.rounding import half_even


def dialects(bits: int, signed: bool) -> Mapping[str, Mapping[str, object]]:
    """Name -> fields of affine.Rule, for int1..8 (signed, symmetric unless asym is said) or uint1..8."""
    steps, half = (1 << bits) - 1, 1 << (bits - 1)
    unsigned_zero = float(half_even(np.float32(1) / (np.float32(2) / np.float32(steps))))  # of the range -1 .. 1
    found: dict[str, Mapping[str, object]] = {
        "gptq": {"mirror": "negative", "flat_scale": 2 / steps, "flat_zero": unsigned_zero - signed * half},
        "compressed-tensors": {
            "zero_rounded": "difference",
            "zero_added": "before",
            "flat_scale": 2.0**-23,
            "flat_zero": 0.0,
        },
        "torchao": {"arithmetic": "reciprocal", "min_scale": 2.0**-126},
        "torch.ao": {"arithmetic": "reciprocal", "min_scale": 2.0**-23},
        "onnx": {"zero_rounded": "difference", "flat_scale": 1 / steps},
        "onnxruntime": {"zero_rounded": "difference", "flat_scale": 1.0},
    }
    if signed and bits > 1:
        found |= {
            "awq": {"range_mode": "restricted", "min_range": 1e-5},
            "smoothquant": {"range_mode": "restricted", "min_range": 1e-5},
            "quanto": {"range_mode": "restricted"},
            "bitsandbytes": {"range_mode": "restricted", "arithmetic": "reciprocal_multiplier"},
        }
    if not signed:
        found |= {
            "awq": {"include_zero": False, "min_range": 1e-5},
            "quanto": {"include_zero": False, "zero_kind": "min"},
            "tinygemm": {"include_zero": False, "zero_kind": "mid", "min_scale": 1e-6},
            "hqq": {
                "include_zero": False,
                "zero_kind": "float",
                "zero_added": "before",
                "arithmetic": "reciprocal_multiplier",
                "min_scale": 1 / 2e4,
                "flat_range": 1e-4,
                "flat_scale": 1.0,
            },
        }
    return found
