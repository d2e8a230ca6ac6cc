"""onnx and onnxruntime: packed tensors, MatMulNBits run on the CPU, a model file read back."""

import numpy as np
import pytest

from refquant.layouts import detect_file, onnx_file
from refquant.layouts import onnx as ours
from refquant.layouts.linear import Linear, middle

pytestmark = pytest.mark.filterwarnings("ignore")
OUTS, INS = 24, 96


def record(bits: int, zero: str, ins: int = INS, size: int = 32) -> Linear:
    rng = np.random.default_rng([bits, ins])
    scale = rng.uniform(0.01, 0.1, (OUTS, -(-ins // size))).astype(np.float32)
    points = middle(bits, scale.shape) if zero == "middle" else rng.integers(0, 1 << bits, scale.shape).astype(np.int16)
    if zero == "float":
        points = rng.uniform(0, 1 << bits, scale.shape).astype(np.float32)
    return Linear(rng.integers(0, 1 << bits, (OUTS, ins), dtype=np.uint8), scale, points, bits, size, "float32")


def model(onnx, ref: Linear):
    arrays = ours.pack_matmul(ref)
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    size = {"K": ref.codes.shape[1], "N": OUTS, "bits": ref.bits, "block_size": ref.group_size}
    node = helper.make_node("MatMulNBits", ["x", *arrays], ["y"], "layer", domain="com.microsoft", **size)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, [None, ref.codes.shape[1]])],
        [helper.make_tensor_value_info("y", kind, [None, OUTS])],
        [to_tensor(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero", ["middle", "int"])
@pytest.mark.parametrize("ins", [96, 80])
def test_onnxruntime_multiplies_with_our_values(peer, bits, zero, ins):
    onnx, runtime = peer("onnx"), peer("onnxruntime")
    ref = record(bits, zero, ins)
    session = runtime.InferenceSession(model(onnx, ref).SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.eye(ins, dtype=np.float32)})  # rows of the identity pick single weights
    np.testing.assert_allclose(got.T, ref.dequantize(), rtol=0, atol=np.abs(ref.dequantize()).max() * 2**-20)


@pytest.mark.parametrize("external", [False, True])
def test_a_model_file_is_read(peer, tmp_path, external):
    onnx = peer("onnx")
    ref = record(4, "int")
    place = tmp_path / "m.onnx"
    onnx.save(model(onnx, ref), place, save_as_external_data=external, location="m.data", size_threshold=16)
    assert (tmp_path / "m.data").exists() == external
    arrays, options = onnx_file.matmuls(place)["layer"]
    got = ours.unpack_matmul(arrays, **options)
    np.testing.assert_array_equal(got.codes, ref.codes)
    np.testing.assert_array_equal(got.zero_point, ref.zero_point)
    np.testing.assert_array_equal(got.scale, ref.scale)
    assert detect_file(place)["layer"].layouts == ("onnx-matmulnbits",)


@pytest.mark.parametrize(
    "bits, signed, kind", [(4, True, "INT4"), (4, False, "UINT4"), (2, True, "INT2"), (2, False, "UINT2")]
)
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1,)])
def test_tensors_hold_our_bytes(peer, bits, signed, kind, shape):
    onnx = peer("onnx")
    low = -(1 << (bits - 1)) if signed else 0
    codes = np.random.default_rng(0).integers(low, low + (1 << bits), shape).astype(np.int8 if signed else np.uint8)
    tensor = onnx.helper.make_tensor(
        "t", getattr(onnx.TensorProto, kind), shape, ours.pack_tensor(codes, bits).tobytes(), raw=True
    )
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(codes.dtype), codes)
    flat = onnx.helper.make_tensor("t", getattr(onnx.TensorProto, kind), shape, codes.reshape(-1).tolist())
    raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(flat)).raw_data
    np.testing.assert_array_equal(ours.unpack_tensor(np.frombuffer(raw, np.uint8), shape, bits, signed), codes)
