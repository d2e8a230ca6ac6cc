"""GGUF: the file format of llama.cpp and every tensor type in it, byte for byte.

    open, GGUFFile, Tensor       read a file: validated header, zero-copy tensors           container.py
    write, create, GGUFWriter    write one at once, or piece by piece                       writer.py
    FORMATS, FORMATS_BY_ID       one BlockFormat record per tensor type                     formats.py
    REJECTED_IDS                 type ids that are refused, with advice
    quantize, dequantize         whole arrays by the name of a type

Conventions
    A tensor is (..., rows, n): NumPy order, the reverse of the file. A block is a run of `values` weights of one row,
    so n is a multiple of `values`. A row of blocks is held as uint8 (..., n / values * block_bytes), a tensor of a
    scalar type as a typed array, BF16 as uint16. Bytes are little-endian.
    A layout is a structured dtype in file order; `decode` and `encode` map arrays of it to float32 (..., values) and
    back. Decoders take any bytes and never warn. Their bits are those of ggml's dequantize_row_*, NaN payloads apart;
    the encoders' bytes are those of ggml_quantize_chunk, with and without an importance matrix, built without fused
    multiply-add, as stock llama.cpp is on x86-64.
    Names of fields are ggml's: d the scale, m or dmin the minimum, qs the low bits of the codes, qh the high ones.
    Each decoder draws its bytes, highest bit first, one letter a code: BBBBAAAA is code A in the low half.
"""

from refquant.gguf.container import GGUFFile, Tensor, open
from refquant.gguf.formats import FORMATS, FORMATS_BY_ID, REJECTED_IDS, BlockFormat, dequantize, quantize
from refquant.gguf.writer import GGUFWriter, create, write

__all__ = [
    "FORMATS",
    "FORMATS_BY_ID",
    "REJECTED_IDS",
    "BlockFormat",
    "GGUFFile",
    "GGUFWriter",
    "Tensor",
    "create",
    "dequantize",
    "open",
    "quantize",
    "write",
]
