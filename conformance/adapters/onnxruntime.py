"""onnxruntime on a CPU: DynamicQuantizeLinear, DequantizeLinear, Cast to small floats."""

import ctypes
from collections.abc import Mapping

import numpy as np

from conformance.adapters import _onnx_layers, _onnx_model
from conformance.adapters._package import installed
from conformance.protocol import Arrays

NAME = "onnxruntime"


def version() -> str:
    """Of the package."""
    return installed("onnxruntime")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """uint8@onnx, casts of `minifloat`, layers."""
    if algorithm.startswith("layer."):
        return _onnx_layers.answer(_evaluate, op, params, inputs)
    return _onnx_model.answer(_evaluate, algorithm, op, params, inputs)


def _evaluate(model, inputs):
    version()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    if "float8" not in session.get_outputs()[0].type:
        return session.run(None, inputs)
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    (made,) = session.run_with_ort_values(None, values)  # NumPy has no such floats: its bytes are read
    return [np.frombuffer(ctypes.string_at(made.data_ptr(), int(np.prod(made.shape()))), np.uint8)]
