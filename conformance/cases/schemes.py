"""Every registered scheme but ggml's types: x -> codes, scale ..., and back."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.arrays import NOTES, inputs, refused
from refquant import gguf
from refquant.errors import QuantError
from refquant.quantize import quantize
from refquant.schemes import SCHEMES

__all__ = ["NOTES", "cases"]


def cases() -> Iterator[Case]:
    """Encode and decode of each scheme on each input; an input that a scheme cannot hold is a case of refusal."""
    for name, scheme in SCHEMES.items():
        if scheme.head in gguf.FORMATS:
            continue
        tile = scheme.granularity.kind == "tile"
        for label, (flag, x) in inputs(2).items():
            if tile:  # tiles of 128 x 128
                if label != "random":
                    continue
                x = np.tile(x, (64, 1)) * np.arange(1, 129, dtype=np.float32)[:, None]
            algorithm = f"scheme.{name}"
            try:
                q = quantize(x, scheme)
            except QuantError:
                yield Case(algorithm, "encode", label, "encode", {"x": x}, flags=(flag,), result="invalid")
                continue
            yield Case(algorithm, "encode", label, "encode", {"x": x}, flags=(flag,))
            stored = {"codes": q.codes, "scale": q.scale, "zero_point": q.zero_point, **q.extras}
            stored = {part: np.asarray(array) for part, array in stored.items() if array is not None}
            shape = {"shape": list(x.shape)}
            yield Case(algorithm, "decode", label, "decode", stored, shape, (flag,), words={"values": "exact"})
        for label, (flag, x) in refused().items():
            yield Case(f"scheme.{name}", "refuse", label, "encode", {"x": x}, flags=(flag,), result="invalid")
