"""ggml's own C: ggml_quantize_chunk, the decoders of its types and their dot products on this CPU, through ctypes.

REFQUANT_GGML_BASE names libggml-base.so; without it the library in an installed llama-cpp-python is taken, and with it
the dot products of libggml-cpu.so. Some types abort the process on some weights, so that a child encodes.
"""

import ctypes
import importlib.util
import mmap
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from conformance.adapters._package import installed
from conformance.protocol import Arrays, Unsupported

NAME = "ggml (C)"
ACTIVATIONS = {"Q8_1": "quantize_row_q8_1_ref", "Q8_K": "quantize_row_q8_K_ref"}  # ggml_quantize_chunk has them not
ROW_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

DOT = ctypes.CFUNCTYPE(None, ctypes.c_int, *[ctypes.c_void_p, ctypes.c_size_t] * 3, ctypes.c_int)


class TypeTraits(ctypes.Structure):
    """The beginning of struct ggml_type_traits of ggml.h."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("values", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    ]


class CPUTraits(ctypes.Structure):
    """struct ggml_type_traits_cpu of ggml-cpu.h."""

    _fields_ = [
        ("from_float", ctypes.c_void_p),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("rows", ctypes.c_int64),
    ]


def version() -> str:
    """Of llama-cpp-python, which brings the library; `library` where a variable names one."""
    if os.environ.get("REFQUANT_GGML_BASE"):
        return "library"
    return f"of llama-cpp-python {installed('llama-cpp-python')}"


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    version()
    library = ctypes.CDLL(os.environ.get("REFQUANT_GGML_BASE") or _installed("libggml-base.so"))
    library.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return library


def _installed(name: str) -> str:
    return str(Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib" / name)


@lru_cache(maxsize=1)
def _cpu_library() -> ctypes.CDLL:
    if os.environ.get("REFQUANT_GGML_BASE"):
        raise Unsupported("dot products: REFQUANT_GGML_BASE names a library without them")
    version()
    library = ctypes.CDLL(_installed("libggml-cpu.so"))
    library.ggml_cpu_init()
    library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(CPUTraits)
    return library


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Blocks of ggml's types, and their products."""
    from refquant.gguf import FORMATS

    family, _, member = algorithm.partition(".")
    if family == "product" and member in FORMATS:
        return {"y": _multiply(member, FORMATS[member].ggml_id, np.ascontiguousarray(inputs["bytes"]), inputs["x"])}
    if family != "gguf" or member not in FORMATS or op not in ("encode", "decode"):
        raise Unsupported(f"{algorithm} {op}")
    number, traits = FORMATS[member].ggml_id, _library().ggml_get_type_traits(FORMATS[member].ggml_id).contents
    if op == "decode":
        return {"values": _decode(member, traits, np.ascontiguousarray(inputs["bytes"]))}
    x, importance = np.ascontiguousarray(inputs["x"], np.float32), inputs.get("importance")
    if importance is None and _library().ggml_quantize_requires_imatrix(number):
        raise Unsupported(f"{algorithm}: ggml wants importance")
    if x.shape[1] % traits.values:
        raise Unsupported(f"{algorithm}: ggml asserts whole blocks, which its callers must see to")
    return {"bytes": _encode(member, number, traits, x, importance)}


def _decode(member: str, traits: TypeTraits, data: np.ndarray) -> np.ndarray:
    function = traits.to_float
    if member == "Q8_K":  # it has a decoder, and no entry in the table of traits
        function = ctypes.cast(_library().dequantize_row_q8_K, ctypes.c_void_p).value
    if function is None:
        raise Unsupported(f"gguf.{member}: ggml has no decoder")
    out = np.empty((len(data), data.shape[1] // traits.block_bytes * traits.values), np.float32)
    ROW_FUNCTION(function)(data.ctypes.data, out.ctypes.data, out.size)
    return out


def _multiply(member: str, number: int, data: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x as the type of activations that ggml multiplies by, then a dot product for each row."""
    library = _cpu_library()
    traits = library.ggml_get_type_traits_cpu(number).contents
    sizes = _library().ggml_get_type_traits(number).contents
    if not traits.vec_dot:
        raise Unsupported(f"product.{member}: ggml has no dot product")
    if x.size != data.shape[1] // sizes.block_bytes * sizes.values:
        raise Unsupported(f"product.{member}: ggml asserts shapes, which its callers must see to")
    other = _library().ggml_get_type_traits(traits.vec_dot_type).contents
    room = np.zeros(x.size // other.values * other.block_bytes, np.uint8)
    made = np.ascontiguousarray(x, np.float32)
    convert = library.ggml_get_type_traits_cpu(traits.vec_dot_type).contents.from_float
    if convert:
        ROW_FUNCTION(convert)(made.ctypes.data, room.ctypes.data, x.size)
    y, dot = np.zeros(len(data), np.float32), DOT(traits.vec_dot)
    for i, row in enumerate(data):
        dot(x.size, y[i:].ctypes.data, 0, row.ctypes.data, 0, (room if convert else made).ctypes.data, 0, 1)
    return y


def _encode(member: str, number: int, traits: TypeTraits, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    row_bytes = x.shape[1] // traits.values * traits.block_bytes
    out = np.frombuffer(mmap.mmap(-1, len(x) * row_bytes), np.uint8).reshape(len(x), row_bytes)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    _library().ggml_quantize_init(number)  # in this process: it uses OpenMP, which does not survive a fork
    child = os.fork()
    if child == 0:
        os.environ["GGML_NO_BACKTRACE"] = "1"  # or an abort starts a debugger
        os.close(2)  # and its message
        if member in ACTIVATIONS:
            ROW_FUNCTION((ACTIVATIONS[member], _library()))(x.ctypes.data, out.ctypes.data, x.size)
        else:
            pointer = None if weights is None else weights.ctypes.data
            _library().ggml_quantize_chunk(number, x.ctypes.data, out.ctypes.data, 0, *x.shape, pointer)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        raise ChildProcessError(f"the process ended by signal {status & 127}")
    return out.copy()
