"""The compiled encoders give ggml's bytes, and those of refquant where rows have odd lengths; what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ggml_cases
import ggml_i_quants
import numpy as np
import pytest

from refquant import gguf
from refquant.errors import NonFiniteError, RangeError, ShapeError, UnsupportedError
from refquant.gguf import FORMATS
from runtime.compilation import prepare
from runtime.encoders import ENCODERS, RowEncoder, quantize
from runtime.encoders.scalars import WIDEN
from runtime.overruns import overruns

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "refquant" / "gguf"
DIGESTS = json.loads((RECORDED / "ggml_digests.json").read_text())
GRID_DIGESTS = json.loads((RECORDED / "ggml_i_digests.json").read_text())
GRIDS = [(name, matrix) for name, matrices in GRID_DIGESTS.items() for matrix in matrices]
ROW = ggml_cases.ROW


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """All of them at once, in two processes; nothing leaves its arrays."""
    found = [function for encoder in ENCODERS.values() for function in (encoder.plain, encoder.weighted)]
    prepare([*dict.fromkeys(function for function in found if function is not None), *WIDEN.values()])
    yield
    assert overruns.value == 0  # counted when REFQUANT_CHECKED is set


def rows(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def importance(n):
    return np.random.default_rng(n).exponential(size=n).astype(np.float32)


def test_there_is_an_encoder_for_every_block_type_of_refquant():
    able = {f.name for f in FORMATS.values() if not f.is_scalar and (f.encode or f.encode_weighted)}
    assert set(ENCODERS) == able
    for name, encoder in ENCODERS.items():
        assert (encoder.plain is None) == (FORMATS[name].encode is None)
        assert (encoder.weighted is None) == (FORMATS[name].encode_weighted is None)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name in DIGESTS["encode"]])
def test_encoded_bytes_are_those_of_ggml(name):
    got = {kind: ggml_cases.digest(quantize(x, name)) for kind, x in ggml_cases.weights().items()}
    assert got == DIGESTS["encode"][name]


@pytest.mark.parametrize("matrix", ggml_cases.importances())
@pytest.mark.parametrize("name", DIGESTS["encode_weighted"])
def test_encoded_bytes_are_those_of_ggml_with_an_importance_matrix(name, matrix):
    v = ggml_cases.importances()[matrix]
    got = {kind: ggml_cases.digest(quantize(x, name, v)) for kind, x in ggml_cases.weights().items()}
    assert got == DIGESTS["encode_weighted"][name][matrix]


@pytest.mark.parametrize("name, matrix", GRIDS)
def test_encoded_bytes_of_i_quants_are_those_of_ggml_and_so_are_refusals(name, matrix):
    values, v = FORMATS[name].values, ggml_cases.importances().get(matrix)
    per_row = ROW // values
    for kind, x in ggml_i_quants.weights().items():
        ref = GRID_DIGESTS[name][matrix][kind]
        blocks, column = x.reshape(-1, values), np.arange(x.size // values) % per_row
        aborted = np.zeros(len(blocks), bool)
        if "aborted" in ref:
            aborted = np.unpackbits(np.frombuffer(bytes.fromhex(ref["aborted"]), np.uint8)).astype(bool)
        got = np.zeros((len(blocks), FORMATS[name].block_bytes), np.uint8)
        for c in range(per_row):  # a block knows nothing of the rest of its row
            encode = RowEncoder(name, values, None if v is None else v[c * values : (c + 1) * values])
            live = (column == c) & ~aborted
            got[live] = encode(blocks[live])
            for i in np.flatnonzero((column == c) & aborted)[:2]:
                with pytest.raises(RangeError, match="expected weights whose errors stay within float32"):
                    encode(blocks[i : i + 1].copy())
        assert ggml_cases.digest(got[~aborted]) == ref["bytes"], kind


@pytest.mark.parametrize("name", ENCODERS)
def test_rows_of_any_number_of_blocks_are_those_of_refquant(name):
    values = FORMATS[name].values
    for blocks, count in ((1, 1), (3, 7), (19, 2)):
        x, v = rows(count, blocks * values), importance(blocks * values)
        for imatrix in (None, v):
            if imatrix is None and ENCODERS[name].plain is None:
                continue
            ref, got = gguf.quantize(x, name, imatrix), quantize(x, name, imatrix)
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, ref)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "IQ3_S"])
def test_threads_and_shapes_change_no_byte(name):
    x = rows(3, 70, 4096).astype(np.float64)
    ref = quantize(x.reshape(-1, 4096), name)
    for threads in (1, 3):
        np.testing.assert_array_equal(quantize(x, name, threads=threads), ref.reshape(3, 70, -1))
    assert quantize(x[:, :0], name).shape == (3, 0, ref.shape[-1])


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
def test_arguments_are_left_as_they_are(name):
    x, v = rows(4, 512), importance(512)
    before = x.tobytes(), v.tobytes()
    x.flags.writeable = v.flags.writeable = False
    quantize(x, name, v)
    assert (x.tobytes(), v.tobytes()) == before


@pytest.mark.parametrize("call, error, message", [
    (lambda x: quantize(x, "Q9_K"), UnsupportedError, "type_name = 'Q9_K', expected a block type"),
    (lambda x: quantize(x, "F16"), UnsupportedError, "type_name = 'F16'"),
    (lambda x: quantize(x, "IQ1_S"), UnsupportedError, "imatrix = None, expected importance, which IQ1_S needs"),
    (lambda x: quantize(x[:, :100], "Q4_K"), ShapeError, "n = 100, expected a positive multiple of 256"),
    (lambda x: quantize(x.astype(np.int32), "Q4_K"), ShapeError, "x = int32"),
    (lambda x: quantize(x * np.nan, "Q4_K"), NonFiniteError, "nan"),
    (lambda x: quantize(x.astype(np.float64) * 1e300, "Q4_K"), RangeError, "expected a value within float32"),
    (lambda x: quantize(x, "Q4_K", importance(255)), ShapeError, r"imatrix = float32 \(255,\)"),
    (lambda x: quantize(x, "Q4_K", -importance(256)), RangeError, "expected values of at least 0"),
    (lambda x: quantize(x, "Q4_K", importance(256) * np.inf), NonFiniteError, "imatrix"),
])  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(rows(2, 256))


@pytest.mark.parametrize("name", WIDEN)
def test_numbers_of_a_file_are_widened_from_any_address(name):
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = np.isfinite(bits.view(np.float16) if name == "F16" else (bits.astype(np.uint32) << 16).view(np.float32))
    bits = bits[finite]
    bits = bits[: len(bits) // 16 * 16]
    source = rows(4096) if name == "F32" else bits
    data = np.frombuffer(b"\0" + source.tobytes(), np.uint8)[1:]
    got = np.empty(len(source), np.float32)
    assert WIDEN[name](data.ctypes.data, got.ctypes.data, len(source)) == 1
    ref = gguf.dequantize(source.view(np.float16) if name == "F16" else source, name)
    np.testing.assert_array_equal(got.view(np.uint32), ref.view(np.uint32))
    for bad in (np.inf, -np.inf, np.nan):
        broken = np.zeros(32, np.float32)
        broken[17] = bad
        encoded = np.ascontiguousarray(FORMATS[name].encode(broken[:, None]))
        assert WIDEN[name](encoded.ctypes.data, got.ctypes.data, 32) == 0


CHECKED = """
import numpy as np
from runtime.encoders import RowEncoder
from runtime.encoders.lanes import load, put_32, spread, store
from runtime.encoders.signatures import FLOATS, lane_encoder
from runtime.overruns import overruns

@lane_encoder
def beyond(x, y, importance, sigma2, first, reals, integers):
    store(reals, first, load(reals, first))
    spread(x, first, 0, reals, 0)
    put_32(y, first, 0, load(integers, 0))
    return 0

arrays = (
    np.zeros((16, 16), np.float32), np.zeros((16, 4), np.uint8), np.zeros((0, 16), np.float32), np.zeros(0, np.float32)
)
scratch = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.int32)
for first, caught in ((0, 0), (1, 2), (16, 34)):
    overruns.value = 0
    beyond(*arrays, first, *scratch)
    print(overruns.value == caught, end=" ")
overruns.value = 0
RowEncoder("Q4_0", 96)(np.ones((7, 96), np.float32))
print(overruns.value)
"""


def test_every_access_beyond_an_array_is_caught_in_checked_mode(tmp_path):
    """A block too far: one row read and one written, sixteen blocks of x read and sixteen words of y written."""
    (tmp_path / "beyond.py").write_text(CHECKED)
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"REFQUANT_CHECKED": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "beyond.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "True", "0"]
