"""QuantizeLinear and DynamicQuantizeLinear of onnxruntime and of ONNX's own reference, bit for bit."""

import numpy as np
import pytest
from peer_inputs import rows

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")


def model(peer, op, inputs, outputs):
    onnx, helper = peer("onnx"), peer("onnx.helper")
    info = helper.make_tensor_value_info
    types = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8}
    graph = helper.make_graph(
        [helper.make_node(op, [n for n, _, _ in inputs], [n for n, _, _ in outputs])],
        op,
        [info(n, types[t], s) for n, t, s in inputs],
        [info(n, types[t], s) for n, t, s in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def backends(peer, made):
    reference = peer("onnx.reference").ReferenceEvaluator(made)
    session = peer("onnxruntime").InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return {"reference": reference, "onnxruntime": session}


@pytest.mark.parametrize("backend", ["reference", "onnxruntime"])
def test_dynamic_quantize_linear_equals_ours(peer, backend):
    outputs = [("y", "uint8", ["n"]), ("s", "float32", []), ("z", "uint8", [])]
    run = backends(peer, model(peer, "DynamicQuantizeLinear", [("x", "float32", ["n"])], outputs))[backend].run
    wrong = {}
    for name, x in rows(256).items():
        codes, scale, zero = run(None, {"x": x})
        got = quantize(x, f"uint8@{'onnx' if backend == 'reference' else backend}")
        if not (np.array_equal(codes, got.codes) and scale == got.scale and zero == got.zero_point):
            wrong[name] = (
                float(scale),
                float(got.scale),
                int(zero),
                int(got.zero_point),
                int((codes != got.codes).sum()),
            )
    assert wrong == {}


@pytest.mark.parametrize("backend", ["reference", "onnxruntime"])
@pytest.mark.parametrize("scheme, dtype", [("int8", "int8"), ("uint8", "uint8")])
def test_quantize_linear_with_a_static_scale_equals_ours(peer, backend, scheme, dtype):
    inputs = [("x", "float32", ["n"]), ("s", "float32", []), ("z", dtype, [])]
    run = backends(peer, model(peer, "QuantizeLinear", inputs, [("y", dtype, ["n"])]))[backend].run
    for x in rows(256).values():
        for scale, zero in ((0.5, 0), (0.0123, 3), (2.0, 100)):
            given = {"scale": np.float32(scale)} | ({} if scheme == "int8" else {"zero_point": zero})
            zero = 0 if scheme == "int8" else zero
            (codes,) = run(None, {"x": x, "s": np.array(scale, np.float32), "z": np.array(zero, dtype)})
            np.testing.assert_array_equal(codes, quantize(x, scheme, **given).codes)
