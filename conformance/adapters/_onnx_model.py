"""Models of one node, for ONNX's reference and for onnxruntime."""

from collections.abc import Callable, Mapping

import numpy as np

from conformance.adapters._package import refusals
from conformance.protocol import Arrays, Unsupported

TYPES = {"float32": "FLOAT", "uint8": "UINT8"}
FLOATS = {name: f"FLOAT8{name.upper()}" for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")}
Run = Callable[[object, dict[str, np.ndarray]], list]  # (model, inputs by name) -> outputs


def answer(
    run: Run, algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays, floats: Mapping[str, str] = FLOATS
) -> dict[str, np.ndarray]:
    """DynamicQuantizeLinear, DequantizeLinear and Cast."""
    family, _, member = algorithm.partition(".")
    if algorithm == "scheme.uint8@onnx" and op == "encode":
        made = model("DynamicQuantizeLinear", {"x": "FLOAT"}, {"y": "UINT8", "s": "FLOAT", "z": "UINT8"})
        with refusals():
            codes, scale, zero = run(made, {"x": inputs["x"]})
        return {"codes": codes, "scale": np.asarray(scale), "zero_point": np.asarray(zero)}
    if algorithm == "scheme.uint8@onnx":
        made = model("DequantizeLinear", {"c": "UINT8", "s": "FLOAT", "z": "UINT8"}, {"x": "FLOAT"})
        given = {"c": inputs["codes"], "s": inputs["scale"], "z": inputs["zero_point"]}
        return {"values": run(made, given)[0]}
    if family == "minifloat" and member in floats and op == "encode" and inputs["x"].dtype == np.float32:
        saturate = int(params["overflow"] == "saturate")
        made = model("Cast", {"x": "FLOAT"}, {"y": floats[member]}, to=floats[member], saturate=saturate)
        return {"codes": np.asarray(run(made, {"x": inputs["x"]})[0]).view(np.uint8)}
    raise Unsupported(f"{algorithm} {op}")


def model(op: str, inputs: Mapping[str, str], outputs: Mapping[str, str], to: str = "", **attributes: int):
    """A model of the one node."""
    from onnx import TensorProto, helper

    shapes = {"s": [], "z": []}
    info = lambda name, kind: helper.make_tensor_value_info(name, getattr(TensorProto, kind), shapes.get(name))
    given = attributes | ({"to": getattr(TensorProto, to)} if to else {})
    node = helper.make_node(op, list(inputs), list(outputs), **given)
    ends = [[info(name, kind) for name, kind in side.items()] for side in (inputs, outputs)]
    version = 24 if to == "FLOAT4E2M1" else 21
    return helper.make_model(
        helper.make_graph([node], op, *ends), opset_imports=[helper.make_opsetid("", version)], ir_version=10
    )
