import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf as container
from refquant.errors import GGUFError
from refquant.models.weights import Weights


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_what_the_blocks_decode_to(tmp_path, type_name, dtype):
    with container.open(write_tiny_model(tmp_path / "m.gguf", types=type_name)) as gguf:
        weights = Weights(gguf.tensors, dtype, keep=False)
        tensor = gguf.tensors["blk.0.ffn_down.weight"]
        got = weights["blk.0.ffn_down.weight"]
        assert got.dtype == dtype and got.shape == tensor.shape
        np.testing.assert_array_equal(got, container.dequantize(tensor.data, type_name))
        some = np.array([3, 0, 3])
        np.testing.assert_array_equal(weights.rows("blk.0.ffn_down.weight", some), got[some])


def test_what_is_kept_is_decoded_once(tmp_path):
    with container.open(write_tiny_model(tmp_path / "m.gguf")) as gguf:
        kept, fresh = (Weights(gguf.tensors, np.float32, keep) for keep in (True, False))
        assert kept["output.weight"] is kept["output.weight"]
        assert fresh["output.weight"] is not fresh["output.weight"]


def test_an_optional_tensor_may_be_absent(tmp_path):
    with container.open(write_tiny_model(tmp_path / "m.gguf")) as gguf:
        weights = Weights(gguf.tensors, np.float32, keep=True)
        assert weights.optional("blk.0.attn_q.bias") is None
        assert weights.optional("output_norm.weight").shape == (64,)


def test_a_tensor_with_nan_is_named(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf")
    with container.open(path) as gguf:
        tensors = {name: (t.data.copy(), t.type) for name, t in gguf.tensors.items()}
        tensors["blk.1.ffn_up.weight"][0][5, 5] = np.nan
        container.write(tmp_path / "nan.gguf", gguf.metadata, tensors, types=gguf.types)
    with container.open(tmp_path / "nan.gguf") as gguf:
        weights = Weights(gguf.tensors, np.float32, keep=True)
        with pytest.raises(GGUFError, match=r"nan.gguf: blk.1.ffn_up.weight holds NaN or infinity"):
            weights["blk.1.ffn_up.weight"]
