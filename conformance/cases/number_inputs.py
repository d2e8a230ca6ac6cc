"""Numbers beside ties and bounds, blocks of every exponent: what number_edges.py gives to the formats."""

import numpy as np


def beside(points: np.ndarray, top: float, count: int, width: int) -> np.ndarray:
    """(count, width): s * top, then numbers around s * point, for s that are no powers of two."""
    rng = np.random.default_rng([count, width, len(points)])
    x = np.empty((count, width), np.float32)
    for row, s in zip(x, np.exp(rng.uniform(-3, 3, count)), strict=True):
        row[0] = s * top
        scale = np.float64(row[0]) / top
        row[1:] = around((rng.choice(points, width - 1) * scale).astype(np.float32))[: 3 * width - 3 : 3]
        steps = rng.integers(-2, 3, width - 1)
        for i, step in enumerate(steps, 1):
            for _ in range(abs(step)):
                row[i] = np.nextafter(row[i], np.float32(np.inf if step > 0 else -np.inf))
        np.clip(row, -row[0], row[0], out=row)
    return x


def around(points: np.ndarray) -> np.ndarray:
    """Each point, and its neighbours."""
    up, down = (np.nextafter(points, np.float32(end)) for end in (np.inf, -np.inf))
    return np.stack([points, up, down], axis=-1).reshape(-1)


def beside_linear(steps: int) -> np.ndarray:
    """(16, 16): ties of a symmetric rule in even rows, of an asymmetric one in odd rows."""
    rng = np.random.default_rng(steps)
    half = steps / 2
    ties = np.arange(-half + 1, half, 1.0)
    symmetric = beside(ties, half, 16, 16)
    asymmetric = np.empty_like(symmetric)
    for row in asymmetric:
        s, zero = np.exp(rng.uniform(-3, 3)), rng.uniform(0.1, 0.9) * steps
        low, high = np.float32(-zero * s), np.float32((steps - zero) * s)
        scale = (np.float64(high) - low) / steps
        row[:2] = low, high
        offset = 0.5 if rng.integers(2) else low / scale % 1 + 0.5
        inner = (np.floor(rng.uniform(-zero + 1, steps - zero - 2, 14)) + offset) * scale
        row[2:] = np.clip(inner.astype(np.float32) * np.float32(1 + 2.0**-23 * rng.integers(-1, 2)), low, high)
    return np.where(np.arange(16)[:, None] % 2, asymmetric, symmetric)


def ascending_bounds(count: int) -> np.ndarray:
    """Ascending float32 within -1 .. 1, no upper half twice but for two that are equal; lower halves of all kinds."""
    upper = np.linspace(0x3E00, 0x3F70, count // 2).astype(np.uint32) << 16
    lower = np.resize(np.uint32([0xFFFF, 0, 0x8000, 1, 0x7FFF]), upper.shape)
    positive = (upper | lower).view(np.float32)
    bounds = np.concatenate([-positive[::-1], np.zeros(count % 2, np.float32), positive])
    bounds[count // 3] = bounds[count // 3 + 1]
    return bounds


def exponents() -> np.ndarray:
    """(16, 32): rows whose largest magnitude is on a power of two, half way, or next below the power above."""
    powers = (-149, -148, -140, -133, -130, -128, -127, -126, -125, -124, -100, 100, 121, 125, 126, 127)
    rng = np.random.default_rng(61)
    x = rng.uniform(-1, 1, (16, 32)).astype(np.float32)
    for number, (row, power) in enumerate(zip(x, powers, strict=True)):
        size = (1.0, 1.5, 2 - 2.0**-23)[number % 3] * 2.0**power
        row[:] = row * size
        row[number] = size
    return x


def parting_powers() -> np.ndarray:
    """(16, 32): largest magnitudes where the rules for a shared exponent part: sqrt(2), 1.5, 1.75 and their like."""
    near_2, root = 2 - 2.0**-23, 2**0.5
    sizes = np.float32([1, 1.25, root, 1.5, 1.75, 1.875, near_2, 1 + 2.0**-23, 6, 3 * root, 12 - 2.0**-20, 7, 0.75,
                        1.5 * root, 1.5 * near_2, 1.5 * (1 + 2.0**-22)])  # fmt: skip
    x = np.random.default_rng(62).uniform(-0.7, 0.7, (16, 32)).astype(np.float32) * sizes[:, None]
    x[:, 5] = sizes
    return x


def blocks_of_33() -> np.ndarray:
    """(33, 32) Gaussian numbers."""
    return np.random.default_rng(33).standard_normal((33, 32), np.float32)
