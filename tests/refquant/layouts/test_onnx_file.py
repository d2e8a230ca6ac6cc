"""MatMulNBits in ONNX files, spelled out byte by byte here, and broken ones."""

import numpy as np
import pytest

from refquant.errors import QuantError
from refquant.layouts import detect_file, onnx, onnx_file, pack


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def text(number: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


TYPES = {"uint8": 2, "float16": 10, "float32": 1}


def tensor(name: str, array: np.ndarray, external: dict[str, str] | None = None) -> bytes:
    body = b"".join(number(1, n) for n in array.shape) + number(2, TYPES[array.dtype.name]) + text(8, name)
    if external is None:
        return body + text(9, array.tobytes())
    return body + number(14, 1) + b"".join(text(13, text(1, k) + text(2, v)) for k, v in external.items())


def model(arrays: dict[str, np.ndarray], bits: int, ins: int, **tensors: bytes) -> bytes:
    inputs = b"".join(text(1, name) for name in ("x", "B", "scales", "zero_points")[: len(arrays) + 1])
    attributes = b"".join(text(5, text(1, k) + number(3, v)) for k, v in {"bits": bits, "K": ins}.items())
    node = inputs + text(3, "/model/q_proj") + text(4, "MatMulNBits") + attributes
    made = {name: tensor(name, array) for name, array in arrays.items()} | tensors
    graph = text(1, node) + text(1, text(4, "Relu")) + b"".join(text(5, t) for t in made.values())
    return number(1, 10) + text(7, graph)


@pytest.mark.parametrize("bits", [4, 8])
def test_nodes_and_their_initializers_are_found(linear, same, tmp_path, bits):
    ref = linear(bits, 6, 80, 32)
    (tmp_path / "m.onnx").write_bytes(model(pack(ref, "onnx-matmulnbits"), bits, 80))
    ((name, (arrays, options)),) = onnx_file.matmuls(tmp_path / "m.onnx").items()
    assert (name, options) == ("/model/q_proj", {"bits": bits, "ins": 80})
    same(onnx.unpack_matmul(arrays, **options), ref)
    found = detect_file(tmp_path / "m.onnx")["/model/q_proj"]
    assert found.layouts == ("onnx-matmulnbits",)
    assert "bits = " in found.evidence[0]


def test_data_beside_the_model_are_read_and_no_others(linear, tmp_path):
    arrays = pack(linear(4, 6, 96, 32), "onnx-matmulnbits")
    (tmp_path / "m.data").write_bytes(b"1234" + arrays["B"].tobytes())
    said = {"location": "m.data", "offset": "4"}
    (tmp_path / "m.onnx").write_bytes(model(arrays, 4, 96, B=tensor("B", arrays["B"], said)))
    got, _ = onnx_file.matmuls(tmp_path / "m.onnx")["/model/q_proj"]
    np.testing.assert_array_equal(got["B"], arrays["B"])
    for location, wanted in (
        ("../m.data", "expected a file beside the model"),
        ("/etc/passwd", "expected a file beside the model"),
        ("gone", "cannot be read"),
    ):
        bad = tensor("B", arrays["B"], said | {"location": location})
        (tmp_path / "m.onnx").write_bytes(model(arrays, 4, 96, B=bad))
        with pytest.raises(QuantError, match=wanted):
            onnx_file.matmuls(tmp_path / "m.onnx")


def test_every_cut_is_an_error_or_finds_less(linear, tmp_path):
    whole = model(pack(linear(4, 2, 32, 32), "onnx-matmulnbits"), 4, 32)
    for length in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        try:
            assert onnx_file.matmuls(tmp_path / "m.onnx") == {}
        except QuantError:
            continue


def test_random_changes_never_escape(linear, tmp_path):
    whole = np.frombuffer(model(pack(linear(4, 2, 32, 32), "onnx-matmulnbits"), 4, 32), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = whole.copy()
        broken[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "m.onnx").write_bytes(broken.tobytes())
        try:
            onnx_file.matmuls(tmp_path / "m.onnx")
        except QuantError:
            refused += 1
    assert 0 < refused < 300  # anything but QuantError fails above
