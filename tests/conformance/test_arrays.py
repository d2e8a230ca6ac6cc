"""Arrays go to JSON and back bit for bit, inline or through a safetensors file."""

import json

import numpy as np
import pytest

from conformance.arrays import DTYPES, Shared, from_json, to_json
from refquant.errors import QuantError


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_every_dtype_and_shape_returns(tmp_path, dtype, shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    array = data.view(dtype).reshape(shape)
    got = from_json(json.loads(json.dumps(to_json(array))), tmp_path)
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not got.flags.writeable


def test_bytes_are_little_endian_whatever_the_array_is():
    assert to_json(np.array([1.0], ">f4"))["hex"] == "0000803f"
    assert to_json(np.asfortranarray(np.array([[1, 2], [3, 4]], np.uint8)))["hex"] == "01020304"


def test_dtypes_without_a_spelling_are_refused():
    with pytest.raises(QuantError, match="dtype = complex64"):
        to_json(np.zeros(1, np.complex64))


def test_shared_arrays_are_found_by_their_bits(tmp_path):
    x, y = np.float32([[1, -0.0]]), np.float32([[1, 0.0]])
    shared = Shared({"x": x, "z": np.zeros(3, np.float32)}, "in.safetensors")
    (tmp_path / "in.safetensors").write_bytes(shared.to_bytes())
    assert to_json(x, shared) == {"file": "in.safetensors", "tensor": "x", "dtype": "float32", "shape": [1, 2]}
    assert "hex" in to_json(y, shared)  # equal values, other bits
    got = from_json(to_json(x, shared), tmp_path)
    assert got.tobytes() == x.tobytes()
    assert not got.flags.writeable


def test_a_shared_tensor_that_is_not_what_the_vector_says_is_an_error(tmp_path):
    shared = Shared({"x": np.zeros((1, 2), np.float32)}, "in.safetensors")
    (tmp_path / "in.safetensors").write_bytes(shared.to_bytes())
    record = to_json(shared.arrays["x"], shared)
    with pytest.raises(QuantError, match=r"x = float32 \(1, 2\), expected"):
        from_json(record | {"shape": [2]}, tmp_path)
    with pytest.raises(QuantError, match="tensor = 'y'"):
        from_json(record | {"tensor": "y"}, tmp_path)
