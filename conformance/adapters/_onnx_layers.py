"""Layers of a decoder as models of one node of ONNX 23: RMSNormalization, RotaryEmbedding, Attention."""

from collections.abc import Callable, Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported

VERSION = 23
Run = Callable[[object, dict[str, np.ndarray]], list]  # (model, inputs by name) -> outputs


def answer(run: Run, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """y of a test of the family `layer`."""
    if op not in LAYERS:
        raise Unsupported(f"layer {op}")
    return {"y": LAYERS[op](run, params, inputs)}


def _rms_norm(run: Run, params: Mapping[str, object], inputs: Arrays) -> np.ndarray:
    given = {"x": inputs["x"], "weight": inputs["weight"]}
    return run(_model("RMSNormalization", given, axis=-1, epsilon=params["eps"]), given)[0]


def _rope(run: Run, params: Mapping[str, object], inputs: Arrays) -> np.ndarray:
    """The node takes tables of cosines and sines, a row for each position; it has (batch, heads, tokens, dim)."""
    dims = params["dims"]
    angle = np.multiply.outer(inputs["positions"], params["base"] ** (-2.0 * np.arange(dims // 2) / dims))
    given = {
        "x": np.ascontiguousarray(inputs["x"].transpose(1, 0, 2))[None],
        "cos": np.cos(angle)[None].astype(np.float32),
        "sin": np.sin(angle)[None].astype(np.float32),
    }
    partial = {"rotary_embedding_dim": dims} if dims < inputs["x"].shape[-1] else {}
    made = _model("RotaryEmbedding", given, interleaved=int(params["style"] == "norm"), **partial)
    return np.ascontiguousarray(run(made, given)[0][0].transpose(1, 0, 2))


def _attention(run: Run, params: Mapping[str, object], inputs: Arrays) -> np.ndarray:
    given = {name: np.ascontiguousarray(inputs[name].transpose(1, 0, 2))[None] for name in ("q", "k", "v")}
    tokens, context = len(inputs["q"]), len(inputs["k"])
    given["mask"] = np.tri(tokens, context, context - tokens, dtype=bool)
    made = _model("Attention", given, scale=params["scale"])
    return run(made, given)[0][0].transpose(1, 0, 2).reshape(tokens, -1)


def _model(op: str, given: dict[str, np.ndarray], **attributes: object):
    from onnx import TensorProto, helper

    types = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
    info = [helper.make_tensor_value_info(name, types[x.dtype.name], x.shape) for name, x in given.items()]
    node = helper.make_node(op, list(given), ["y"], **attributes)
    graph = helper.make_graph([node], op, info, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", VERSION)], ir_version=11)


LAYERS = {"rms_norm": _rms_norm, "rope": _rope, "attention": _attention}
