"""Plain casts to 8-bit floats of torch and of the ONNX reference: codes for every upper half of float32."""

import numpy as np
import pytest

from refquant import minifloat
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")
X = np.concatenate([
    ((np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)) | np.uint32(lower)).view(np.float32)
    for lower in (0, 1, 0x7FFF, 0x8000, 0xFFFF)
])  # fmt: skip


def by_torch(peer, x, name):
    torch = peer("torch")
    return torch.tensor(x).to(getattr(torch, f"float8_{name}")).view(torch.uint8).numpy()


@pytest.mark.parametrize("name, overflow", [("e4m3fn", "saturate"), ("e4m3fnuz", "special"), ("e5m2fnuz", "special")])
def test_casts_equal_torch_which_saturates_one_format_only(peer, name, overflow):
    np.testing.assert_array_equal(minifloat.encode(X, FORMATS[name], overflow=overflow), by_torch(peer, X, name))


def test_casts_to_e5m2_equal_torch_but_for_the_code_of_nan(peer):
    ours, theirs = minifloat.encode(X, FORMATS["e5m2"], overflow="special"), by_torch(peer, X, "e5m2")
    nan = np.isnan(X)
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    assert set(theirs[nan].tolist()) == {0x7F, 0xFF}
    assert set(ours[nan].tolist()) == {0x7E, 0xFE}


def test_torch_drops_the_sign_and_rounds_ties_upward_in_e8m0(peer):
    x = np.array([1.5, 3.0, -2.0, 0.0, 1.3 * 2.0**-127], np.float32)
    assert by_torch(peer, x, "e8m0fnu").tolist() == [128, 129, 128, 0, 1]
    assert minifloat.encode(x, FORMATS["e8m0"]).tolist() == [128, 128, 255, 0, 0]


@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1"])
@pytest.mark.parametrize("saturate", [1, 0])
def test_casts_equal_the_onnx_reference(peer, name, saturate):
    onnx, reference = peer("onnx"), peer("onnx.reference")
    make, kind = onnx.helper, getattr(onnx.TensorProto, f"FLOAT{FORMATS[name].bits}{name.upper()}")
    graph = make.make_graph(
        [make.make_node("Cast", ["x"], ["y"], to=kind, saturate=saturate)],
        "cast",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])],
        [make.make_tensor_value_info("y", kind, [None])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 24)])
    x = X if FORMATS[name].nan is not None else X[~np.isnan(X)]
    theirs = np.asarray(reference.ReferenceEvaluator(model).run(None, {"x": x})[0]).view(np.uint8)
    ours = minifloat.encode(x, FORMATS[name], overflow="saturate" if saturate else "special")
    np.testing.assert_array_equal(ours, theirs)
