"""Methods: how to choose the codes of a weight matrix, other than by rounding to nearest.

    METHODS[name](W, scheme, calibration, **options) -> QuantizedTensor

    W            (out, in), float16/32/64 or bfloat16
    scheme       the format (schemes.py): a method fills it with better codes, it does not change what codes mean
    calibration  what the layer is fed: X (tokens, in) or (batch, tokens, in), an iterable of such batches, or a
                 hessian.Hessian that was accumulated before; a method that needs none ignores it
    options      the method's own, named in its module; `dialect` is one of them where implementations differ

What a method promises about its bytes is in DETERMINISM:

    exact    float64 in a fixed order of operations: the same bytes on every machine
    option   precision="exact" gives that, at many times the time; precision="fast", the default, is as below
    no BLAS  no matrix product decides anything: the same bytes for any BLAS and any number of threads
    fast     float32, products by BLAS: another BLAS, processor or number of threads may move weights that lie next to a
             tie: at most two codes in a thousand and half a percent of the output error (tests/method_codes.py)

`refquant.quantize(W, "int4-g128", method="gptq", calibration=X)` looks here; "gptq@ist" is method "gptq" with
dialect="ist". A new method is a module with such a function and two lines below.
"""

import inspect
from collections.abc import Callable

from refquant import (
    adaround,
    autoround,
    awq,
    easyquant,
    gptaq,
    gptq,
    hqq,
    ldlq,
    low_rank,
    magnitude,
    nearest,
    obq,
    smoothquant,
    sparse_split,
    sparsegpt,
    wanda,
    weighted_rounding,
    zeroquant,
)
from refquant.errors import SchemeError
from refquant.tensor import QuantizedTensor

Method = Callable[..., QuantizedTensor]

METHODS: dict[str, Method] = {
    "nearest": nearest.quantize,
    "gptq": gptq.quantize,
    "gptaq": gptaq.quantize,
    "obq": obq.quantize,
    "ldlq": ldlq.quantize,
    "sparsegpt": sparsegpt.quantize,
    "wanda": wanda.quantize,
    "magnitude": magnitude.quantize,
    "awq": awq.quantize,
    "smoothquant": smoothquant.quantize,
    "hqq": hqq.quantize,
    "adaround": adaround.quantize,
    "autoround": autoround.quantize,
    "weighted": weighted_rounding.quantize,
    "easyquant": easyquant.quantize,
    "zeroquant": zeroquant.quantize,
    "sparse": sparse_split.quantize,
    "low_rank": low_rank.quantize,
}

DETERMINISM: dict[str, str] = {
    **dict.fromkeys(("gptq", "gptaq", "ldlq", "sparsegpt"), "option"),
    **dict.fromkeys(("nearest", "wanda", "magnitude", "smoothquant", "hqq", "weighted", "easyquant"), "no BLAS"),
    **dict.fromkeys(("awq", "adaround", "autoround", "zeroquant", "sparse", "low_rank"), "fast"),
    "obq": "exact",
}


def find(spelling: str) -> tuple[Method, dict[str, str]]:
    """The function of "name" or "name@dialect", and the options that the spelling says. Raises SchemeError."""
    name, at, dialect = spelling.partition("@") if isinstance(spelling, str) else ("", "", "")
    if name not in METHODS:
        raise SchemeError(f"methods: method = {spelling!r}, expected one of {', '.join(METHODS)}")
    return METHODS[name], {"dialect": dialect} if at else {}


def takes(method: Method, option: str) -> bool:
    """Whether a method has an option of this name, or looks through unnamed ones itself."""
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == option or p.kind == p.VAR_KEYWORD for p in parameters)
