"""ggml's bytes of the I-quants, and on which blocks it aborts: what `ggml_base` records of the other encoders.

To tests/refquant/gguf/ggml_i_digests.json: `python tests/ggml_i_quants.py libggml-base.so > FILE`.
"""

import json
import sys

import ggml_aborts
import ggml_cases
import numpy as np
from ggml_base import GGML

from refquant.gguf.formats import FORMATS, BlockFormat

TYPES = [name for name in FORMATS if name.startswith("IQ")]


def weights() -> dict[str, np.ndarray]:
    """Those of `ggml_cases`, and some with groups of zeros between others."""
    gaps = ggml_cases.stream("gaps", ggml_cases.WEIGHTS // 16, "u1").repeat(16).reshape(-1, ggml_cases.ROW)
    kinds = ggml_cases.weights()
    return kinds | {"gaps": np.where(gaps % 4 == 0, np.float32(0), kinds["bell"])}


def digests(ggml: GGML) -> dict:
    """{type: {imatrix: {kind: {"bytes": SHA-256 of the blocks that do not abort, "aborted": bits of all blocks}}}}."""
    matrices = {"none": None, **ggml_cases.importances()}
    return {
        name: {
            matrix: {kind: _encoded(ggml, FORMATS[name], x, v) for kind, x in weights().items()}
            for matrix, v in matrices.items()
            if v is not None or FORMATS[name].encode is not None
        }
        for name in TYPES
    }


def _encoded(ggml: GGML, fmt: BlockFormat, x: np.ndarray, imatrix: np.ndarray | None) -> dict[str, str]:
    data, aborted = ggml_aborts.encode(ggml, fmt, x, imatrix)
    found = {"bytes": ggml_cases.digest(data[~aborted])}
    return found | {"aborted": np.packbits(aborted).tobytes().hex()} if aborted.any() else found


if __name__ == "__main__":
    json.dump(digests(GGML(sys.argv[1])), sys.stdout, indent=1)
    sys.stdout.write("\n")
