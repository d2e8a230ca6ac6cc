"""Rounding to nearest, as a method beside the calibrated ones: the format's own encoder, nothing else."""

import numpy as np

from refquant.codecs import CODECS
from refquant.inputs import as_float32
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


def quantize(W: np.ndarray, scheme: Scheme | str, calibration: object = None) -> QuantizedTensor:
    """What refquant.quantize(W, scheme) gives; calibration is not looked at."""
    scheme, W = parse(scheme), as_float32("nearest.quantize", W, "W")
    parts = CODECS[type(scheme.rule)].encode(W, scheme.rule, scheme.granularity, None)
    return QuantizedTensor(parts.codes, parts.scale, parts.zero_point, scheme, W.shape, parts.extras)
