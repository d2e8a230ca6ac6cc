"""Integer weights as other people's files hold them: pack, unpack, and the weights that they stand for."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from refquant.layouts import LAYOUTS, Linear, pack

NOTES = {
    "Packed": {
        "kind": "total",
        "description": "Codes of every value, zero points of every value but 0, float16 scales.",
        "effect": "Weights of a checkpoint come back in another order, or under other scales.",
    },
}
BITS = {
    **dict.fromkeys(("gptq", "gptq_v2"), (2, 3, 4, 8)),
    **dict.fromkeys(("awq-gemm", "awq-gemv"), (4,)),
    "pack-quantized": (2, 3, 4, 5, 6, 7, 8),
    "onnx-matmulnbits": (4,),
    "hqq": (1, 2, 3, 4, 8),
    "quanto": (2, 4),
    "mlx": (2, 3, 4, 5, 6, 8),
}
OUTS, INS, SIZE = 32, 128, 32


def cases() -> Iterator[Case]:
    """Each layout at each width that it has."""
    for name, widths in BITS.items():
        for bits in widths:
            rng = np.random.default_rng(bits)
            groups = (OUTS, INS // SIZE)
            codes = rng.integers(0, 1 << bits, (OUTS, INS), dtype=np.uint8)
            top = 8 if name == "mlx" else 1024  # its float16 holds scale * zero_point
            scale = (rng.integers(1, top, groups) / 4096).astype(np.float32)
            zero = rng.integers(1, 1 << bits, groups).astype(np.int16)
            linear, label = Linear(codes, scale, zero, bits, SIZE), f"{bits}-bits"
            parts, size = {"codes": codes, "scale": scale, "zero_point": zero}, {"bits": bits, "group_size": SIZE}
            algorithm = f"layout.{name}"
            yield Case(algorithm, "pack", label, "pack", parts, size, ("Packed",))
            told = {key: list(v) if isinstance(v, tuple) else v for key, v in LAYOUTS[name].told(linear).items()}
            arrays = dict(pack(linear, name))
            if name != "mlx":  # its zero point is a float, the value of code 0
                words = {"zero_point": "exact"}
                yield Case(algorithm, "unpack", label, "unpack", arrays, told, ("Packed",), words=words)
            yield Case(algorithm, "decode", label, "decode", arrays, told, ("Packed",), words={"values": "exact"})
