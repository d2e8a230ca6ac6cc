"""Weights on which implementations part: each row of `rows(n)` is one group of n values, each with a name."""

import numpy as np


def rows(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """name -> float32 (n,). n is at least 32 and even."""
    rng = np.random.default_rng([seed, n])
    named = {f"gaussian {i}": rng.standard_normal(n, dtype=np.float32) for i in range(40)}
    ties = (rng.integers(-15, 16, n) / 2).astype(np.float32)
    ties[0], ties[1] = 7.5, -7.5  # quotients by amax / 7.5 and by amax / 15 end in exactly .5
    one_hot = np.zeros(n, np.float32)
    one_hot[n // 3] = 3
    positive = np.abs(rng.standard_normal(n, dtype=np.float32)) + np.float32(0.5)
    named |= {
        "ties": ties,
        "ties in units of 2^-9": ties * np.float32(2**-9),
        "zeros": np.zeros(n, np.float32),
        "negative zeros": np.full(n, -0.0, np.float32),
        "one hot": one_hot,
        "one hot, negative": -one_hot,
        "constant": np.full(n, 1.25, np.float32),
        "constant, negative": np.full(n, -0.3, np.float32),
        "no negative": positive,
        "no positive": -positive,
        "far from zero": positive + np.float32(10),
        "tiny": rng.standard_normal(n, dtype=np.float32) * np.float32(1e-12),
        "uniform": rng.uniform(-1, 1, n).astype(np.float32),
    }
    for exponent in (-20, -1, 0, 3, 20):
        row = rng.uniform(-1, 1, n).astype(np.float32)
        row[5] = row[5] / abs(row[5])
        named[f"amax at 2^{exponent}"] = row * np.float32(2.0**exponent)
    return named


def subnormal_rows(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows whose absmax, or whose scale, is a subnormal float32."""
    row = np.random.default_rng([seed, n]).uniform(-1, 1, n)
    row[3] = 1
    return {f"amax at {amax:g}": (row * amax).astype(np.float32) for amax in (1e-37, 1e-38, 1e-39, 1e-42, 1e-45)}


def matrix(n: int, seed: int = 0) -> np.ndarray:
    """All rows, stacked: float32 (rows, n)."""
    return np.stack(list(rows(n, seed).values()))


def differing(n: int, ref: np.ndarray, got: np.ndarray, seed: int = 0) -> dict[str, int]:
    """Names of the rows of `matrix(n)` in which two results differ, with the count: {} where they are equal."""
    counts = (np.asarray(ref) != np.asarray(got)).reshape(len(ref), -1).sum(axis=1)
    return {name: int(count) for name, count in zip(rows(n, seed), counts) if count}
