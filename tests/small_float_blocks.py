"""Blocks on which implementations of small floats part: float32 matrices by name, the same in every run."""

import numpy as np

TIES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 0.0, 0.5, 6.0, 6.5, 7.0, 7.5)


def blocks(size: int) -> dict[str, np.ndarray]:
    """name -> (rows, size) float32, a block or several a row."""
    rng = np.random.default_rng(size)
    powers = 2.0 ** np.arange(-60, 60)[:, None]
    unit = rng.uniform(-1, 1, (120, size))
    unit[:, 3] = 1
    near = {
        f"amax at {factor} * 2^k{'' if ulps == 0 else f' and {ulps} ulp'}": _moved(unit * factor * powers, ulps)
        for factor in (1, 1.5, 1.75)
        for ulps in (0, -1, 1)
    }
    bfloat16 = rng.standard_normal((128, size)).astype(np.float32)
    bfloat16.view(np.uint32)[:] &= np.uint32(0xFFFF0000)
    kinds = {
        "random": rng.standard_normal((128, size)),
        "ties": rng.choice(TIES, (256, size)) * rng.choice([-1, 1], (256, size)),
        "some zero blocks": np.where(rng.random((64, 1)) < 0.5, 0, rng.standard_normal((64, size))),
        "one-hot": np.eye(size) * np.linspace(-3, 3, size)[:, None],
        "constant": np.repeat(rng.standard_normal((64, 1)), size, axis=1),
        "subnormal": rng.standard_normal((64, size)) * 1e-39,
        "tiny": rng.standard_normal((64, size)) * 2.0 ** rng.integers(-140, -110, (64, 1)),
        "huge": np.clip(rng.standard_normal((64, size)), -3, 3) * 2.0**125,
        "bfloat16": bfloat16,
        **near,
    }
    return {name: np.ascontiguousarray(x, np.float32) for name, x in kinds.items()}


def next_to_powers(size: int, ulps: int = 50) -> np.ndarray:
    """(rows, size): the largest magnitude runs through the floats around many powers of two."""
    offsets = np.arange(-ulps, ulps + 1)
    peaks = (2.0 ** np.array([-100, -33, -9, -1, 0, 1, 5, 17, 40, 100])).astype(np.float32)
    bits = (peaks.view(np.int32)[:, None] + offsets).astype(np.int32)
    x = np.zeros((bits.size, size), np.float32)
    x[:, 1] = bits.view(np.float32).ravel()
    x[:, 2] = x[:, 1] / 3
    return x


def _moved(x: np.ndarray, ulps: int) -> np.ndarray:
    x = x.astype(np.float32)
    x[:, 3] = np.nextafter(x[:, 3], np.float32(np.sign(ulps) * np.inf)) if ulps else x[:, 3]
    return x
