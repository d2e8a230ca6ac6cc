"""AF4's levels are derived here from the distribution of Gaussians divided by the largest of their block."""

from statistics import NormalDist

import numpy as np

from refquant import af4, quantize

BLOCK = 64


def distribution(block: int) -> tuple[np.ndarray, np.ndarray]:
    """F of a quotient x / max|x| that is not the maximum itself, on a grid of -1 .. 1."""
    cdf = np.vectorize(NormalDist().cdf)
    m = np.linspace(0.3, 6, 1200)  # the maximum; its density is block * (2 Phi(m) - 1)^(block - 1) * 2 phi(m)
    inside = 2 * cdf(m) - 1
    weight = block * inside ** (block - 1) * 2 * np.exp(-(m**2) / 2) / np.sqrt(2 * np.pi)
    weight /= weight.sum()
    x = np.linspace(0, 1, 1001)
    half = (
        np.interp(np.outer(x, m), t := np.linspace(0, 6, 6001), 2 * cdf(t) - 1) / inside @ weight
    )  # P(|quotient| <= x)
    F = np.r_[0.5 - half[:0:-1] / 2, 0.5 + half / 2]
    # one of the block is the maximum: 1 / block of the mass lies at -1 and 1, half each
    return np.r_[-x[:0:-1], x], 0.5 / block + (1 - 1 / block) * F


def medians(levels: np.ndarray, fixed: list[int], halves: bool) -> np.ndarray:
    """Levels of which each but the fixed ones is the median of its bin; with halves, bins end at 0."""
    grid, F = distribution(BLOCK)
    levels = levels.copy()
    free = [i for i in range(len(levels)) if i not in fixed]
    for _ in range(3000):
        bounds = (levels[1:] + levels[:-1]) / 2
        if halves:
            bounds[np.flatnonzero((levels[:-1] < 0) & (levels[1:] > 0))] = 0
        at_bound = np.interp(bounds, grid, F)
        levels[free] = np.interp([(at_bound[i - 1] + at_bound[i]) / 2 for i in free], F, grid)
    return levels


def test_levels_are_the_medians_of_bins_that_end_at_zero_and_zero_itself():
    start = np.r_[np.linspace(-1, -0.1, 7), np.linspace(0.1, 1, 8)]
    derived = medians(start, fixed=[0, 14], halves=True)
    np.testing.assert_allclose(af4.LEVELS, np.insert(derived, 7, 0), rtol=0, atol=1e-4)


def test_their_absolute_error_is_above_that_of_nf4_and_of_medians_that_know_of_zero():
    optimal = medians(np.r_[np.linspace(-1, 0, 8), np.linspace(0, 1, 9)[1:]], fixed=[0, 7, 15], halves=False)
    x = np.random.default_rng(64).standard_normal((4096, 512), dtype=np.float32)
    error = {name: quantize(x, name).dequantize() - x for name in ("af4", "nf4")}
    error["optimal"] = quantize(x, "codebook4-g64", levels=optimal).dequantize() - x
    scale = quantize(x, "nf4").scale.repeat(64).reshape(x.shape)
    quotient = {name: np.abs(e / scale).mean() for name, e in error.items()}  # what the equation is about
    assert quotient["optimal"] < quotient["nf4"] < quotient["af4"]
    mean = {name: np.abs(e).mean() for name, e in error.items()}
    assert 1.02 < mean["af4"] / mean["nf4"] < 1.04
    assert 1.07 < np.square(error["af4"]).mean() / np.square(error["nf4"]).mean() < 1.09
