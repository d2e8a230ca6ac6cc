"""Small weights of small floats: every element under every scale."""

import numpy as np

from refquant.layouts import Floating


def weights() -> dict[str, Floating]:
    """Every element under every scale."""
    made: dict[str, Floating] = {}
    rng = np.random.default_rng(5)
    for element, bits in (("e2m1", 4), ("e2m3", 6), ("e3m2", 6), ("e4m3fn", 8), ("e5m2", 8)):
        codes = rng.integers(0, 1 << bits, (4, 64), dtype=np.uint8)
        for block in (16, 32):
            scale = rng.integers(1, 255, (4, 64 // block), dtype=np.uint8)
            made[f"{element}-e8m0-{block}"] = Floating(codes, element, scale, "e8m0", (1, block))
            tensor = np.float32(0.01)
            made[f"{element}-e4m3fn-{block}"] = Floating(codes, element, scale & 127, "e4m3fn", (1, block), tensor)
            made[f"{element}-e4m3fn-{block}-divided"] = Floating(
                codes, element, scale & 127, "e4m3fn", (1, block), np.float32(100), True
            )
        for dtype in ("float16", "bfloat16", "float32"):
            for label, shape in (("row", (1, 64)), ("tensor", (4, 64)), ("tile", (2, 32))):
                groups = (4 // shape[0], 64 // shape[1])
                scale = (rng.integers(1, 256, groups) / 4096).astype(np.float32)
                made[f"{element}-{dtype}-{label}"] = Floating(codes, element, scale, dtype, shape)
    for scale_dtype, block, tops in (("e8m0", 32, (0, 254, 255)), ("e4m3fn", 16, (0, 126, 127, 128))):
        plain = made[f"e2m1-{scale_dtype}-{block}"]
        odd = (codes & 15)[:, : block + 8], plain.scale[:, :2]
        made[f"e2m1-{scale_dtype}-{block}-ragged"] = Floating(odd[0], "e2m1", odd[1], scale_dtype, (1, block))
        whole = (codes & 15)[:, :block], plain.scale[:, :1]
        made[f"e2m1-{scale_dtype}-{block}-one-block"] = Floating(whole[0], "e2m1", whole[1], scale_dtype, (1, block))
        for top in tops:
            scale = np.full_like(plain.scale, 100)
            scale[1, 1] = top
            made[f"e2m1-{scale_dtype}-{block}-{top}"] = Floating(codes & 15, "e2m1", scale, scale_dtype, (1, block))
    return made
