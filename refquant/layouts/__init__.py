"""Other people's files: the bytes of quantized weights in GPTQ, AWQ, compressed-tensors, ONNX, MLX ... checkpoints.

    LAYOUTS                       every layout by its name                                  catalogue.py
    unpack, pack                  arrays of one weight <-> record, by the name of the layout
    Linear, Floating              the two records where layouts meet                        linear.py, floating.py
    detect, detect_file           which layout it is, and how one knows                     detect.py
    transcode, transcode_file     the same numbers in another layout, proved equal          transcode.py, conversion.py

Conventions
    A state dict is a mapping of names (without the prefix of the layer) to NumPy arrays; bfloat16 is uint16, the
    eight-bit floats are uint8. Weights are (out, in). Codes in a record are unsigned, one to a byte.
    Reading checks every shape, dtype and index before anything is computed from them, and what is wrong is an error
    that names the array. Writing never rounds: what a layout cannot hold exactly is refused with the reason, so that
    unpack(pack(record)) is the record, bit for bit.
    Drawings of bytes and words have the highest bit on the left, one letter a code: BBBBAAAA is code A in the low half.
"""

from refquant.layouts.catalogue import LAYOUTS, Layout, pack, unpack
from refquant.layouts.conversion import transcode_file
from refquant.layouts.detect import Detection, detect, detect_file
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear
from refquant.layouts.transcode import transcode

__all__ = [
    "LAYOUTS",
    "Detection",
    "Floating",
    "Layout",
    "Linear",
    "detect",
    "detect_file",
    "pack",
    "transcode",
    "transcode_file",
    "unpack",
]
