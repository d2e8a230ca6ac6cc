"""ggml's own C, through ctypes: `python tests/ggml_base.py libggml-base.so > tests/refquant/gguf/ggml_digests.json`.

libggml-base.so comes with llama.cpp and with the package llama-cpp-python. ggml-quants.c in it must have been built
without fused multiply-add, as all x86-64 builds are that do not ask for more. Run it from the root of the project, with
the root and tests/ on PYTHONPATH.
"""

import ctypes
import json
import sys

import ggml_cases
import numpy as np

from refquant.gguf.formats import FORMATS, BlockFormat


class TypeTraits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    ]


# ggml_quantize_chunk refuses the types that never lie in a file.
ACTIVATIONS = {"Q8_1": "quantize_row_q8_1_ref", "Q8_K": "quantize_row_q8_K_ref"}
RowFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class GGML:
    """The decoders and encoders of one libggml-base."""

    def __init__(self, path: str):
        self.library = ctypes.CDLL(path)
        self.library.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
        self.library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
        chunk = self.library.ggml_quantize_chunk
        chunk.restype = ctypes.c_size_t
        chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def traits(self, fmt: BlockFormat) -> TypeTraits:
        traits = self.library.ggml_get_type_traits(fmt.ggml_id).contents
        got, want = (traits.blck_size, traits.type_size), (fmt.values, fmt.block_bytes)
        assert got == want, f"{fmt.name}: ggml has {got}, refquant has {want}"
        return traits

    def decode(self, fmt: BlockFormat, data: np.ndarray) -> np.ndarray | None:
        """float32 of all blocks in `data`; None where ggml has no decoder."""
        function = self.traits(fmt).to_float
        if fmt.name == "Q8_K":  # it has a decoder, and no entry in the table of traits
            function = ctypes.cast(self.library.dequantize_row_q8_K, ctypes.c_void_p).value
        if function is None:
            return None
        out = np.empty(data.size // fmt.block_bytes * fmt.values, np.float32)
        RowFunction(function)(data.ctypes.data, out.ctypes.data, out.size)
        return out

    def encode(self, fmt: BlockFormat, x: np.ndarray, imatrix: np.ndarray | None = None) -> np.ndarray | None:
        """uint8 (rows, row bytes) for x (rows, n) float32; None where ggml insists on an imatrix.

        The buffer starts as zeros: Q8_K leaves the sums of a block of zeros as they are.
        """
        self.traits(fmt)
        if imatrix is None and self.library.ggml_quantize_requires_imatrix(fmt.ggml_id):
            return None
        x = np.ascontiguousarray(x, np.float32)
        out = np.zeros((len(x), x.shape[1] // fmt.values * fmt.block_bytes), np.uint8)
        if fmt.name in ACTIVATIONS:
            RowFunction((ACTIVATIONS[fmt.name], self.library))(x.ctypes.data, out.ctypes.data, x.size)
        else:
            v = None if imatrix is None else np.ascontiguousarray(imatrix, np.float32)
            pointer = None if v is None else v.ctypes.data
            self.library.ggml_quantize_chunk(fmt.ggml_id, x.ctypes.data, out.ctypes.data, 0, *x.shape, pointer)
        return out


def encoders() -> list[BlockFormat]:
    """All but F32, a copy, and the I-quants, on some blocks of which ggml aborts: `ggml_i_quants` has them."""
    return [f for f in FORMATS.values() if f.encode and f.name != "F32" and not f.name.startswith("IQ")]


def digests(ggml: GGML) -> dict:
    decoded = {f.name: ggml.decode(f, ggml_cases.block_bytes(f)) for f in FORMATS.values()}
    return {
        "decode": {name: ggml_cases.digest(x) for name, x in decoded.items() if x is not None},
        "encode": {f.name: _encoded(ggml, f, None) for f in encoders()},
        "encode_weighted": {
            f.name: {matrix: _encoded(ggml, f, v) for matrix, v in ggml_cases.importances().items()}
            for f in encoders()
            if f.encode_weighted
        },
    }


def _encoded(ggml: GGML, fmt: BlockFormat, imatrix: np.ndarray | None) -> dict[str, str]:
    return {kind: ggml_cases.digest(ggml.encode(fmt, x, imatrix)) for kind, x in ggml_cases.weights().items()}


if __name__ == "__main__":
    json.dump(digests(GGML(sys.argv[1])), sys.stdout, indent=1)
    sys.stdout.write("\n")
