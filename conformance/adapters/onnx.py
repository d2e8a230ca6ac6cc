"""ONNX's own reference evaluator: DynamicQuantizeLinear, DequantizeLinear, Cast to small floats."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import _onnx_layers, _onnx_model
from conformance.adapters._package import installed
from conformance.protocol import Arrays

NAME = "onnx (reference)"


def version() -> str:
    """Of the package."""
    return installed("onnx")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """uint8@onnx, casts of `minifloat`, layers."""
    if algorithm.startswith("layer."):
        return _onnx_layers.answer(_evaluate, op, params, inputs)
    floats = _onnx_model.FLOATS | {"e2m1": "FLOAT4E2M1"}
    return _onnx_model.answer(_evaluate, algorithm, op, params, inputs, floats)


def _evaluate(model, inputs):
    version()
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, inputs)
