"""What the numbers of a file say about how they were written, where the shapes do not.

    middle    weights of a layer have a mean near 0, so codes have a mean near their zero point. A zero point that is
              read one too high or too low moves every weight by one step of its scale: the mean of code - zero_point
              over the weight is near 0 for one reading and near 1 or -1 for the other.
    balance   |mean| / mean |x| of the decoded weight: near 0 for the right bits, and not for codes cut at other places,
              whose scales and minima belong to a different number of levels.
    spread    mean |code - zero_point|: least for the right order of bits, since weights crowd around 0.

They are statistics of trained weights: for a made-up tensor they may say nothing, and then the answer is "ambiguous".
"""

import numpy as np

from refquant.layouts.linear import Linear

CERTAIN, WRONG = 0.25, 0.75  # a mean nearer to 0 than the first is right, farther than the second is wrong
NOISE = 0.15  # a standard error above it decides nothing
SAMPLE = 256  # outputs that are looked at


def middle(linear: Linear) -> tuple[float, float]:
    """(mean, its standard error) of code - zero_point, groups whose zero point is at the edge of its range left out."""
    rows = slice(0, SAMPLE)
    zero = linear.per_input(linear.zero_point)[rows].astype(np.float64)
    inside = (zero > 0) & (zero < 1 << linear.bits)
    if not inside.any():
        return float("nan"), float("inf")
    steps = (linear.codes[rows] - zero)[inside]
    return float(steps.mean()), float(steps.std() / np.sqrt(steps.size))


def balance(linear: Linear) -> float:
    """|mean| / mean |x| of the weight, in 0 .. 1; NaN for zeros."""
    x = linear.dequantize()[:SAMPLE].astype(np.float64)
    size = np.abs(x).mean()
    return float(abs(x.mean()) / size) if np.isfinite(size) and size > 0 else float("nan")


def spread(linear: Linear) -> float:
    """The mean of |code - zero_point|."""
    rows = slice(0, SAMPLE)
    zero = linear.per_input(linear.zero_point)[rows].astype(np.float64)
    return float(np.abs(linear.codes[rows] - zero).mean())


def zero_version(plus_one: Linear, as_stored: Linear) -> tuple[str, str]:
    """("gptq" | "gptq_v2" | "", why): whether the zero points of a GPTQ file are stored minus one.

    `plus_one` and `as_stored` are the two readings of the same arrays.
    """
    half, stored = 1 << (as_stored.bits - 1), as_stored.zero_point
    if (stored == half - 1).all():
        return "gptq", f"every zero field is {half - 1}: symmetric, stored minus one"
    if (stored == half).all():
        return "gptq_v2", f"every zero field is {half}: symmetric, stored as it is"
    (v1, error), (v2, _) = middle(plus_one), middle(as_stored)
    seen = f"mean of code - zero_point is {v1:+.3f} if fields are z - 1, {v2:+.3f} if they are z, +- {error:.3f}"
    if not error < NOISE:
        return "", f"{seen}: too few weights to tell"
    if abs(v1) < CERTAIN and abs(v2) > WRONG:
        return "gptq", f"{seen}: weights have a mean near 0, so fields are z - 1"
    if abs(v2) < CERTAIN and abs(v1) > WRONG:
        return "gptq_v2", f"{seen}: weights have a mean near 0, so fields are z"
    return "", f"{seen}: neither is near 0 with the other near 1"


def tensor_scale(value: float, divides: bool, largest_scale: float) -> tuple[bool, str]:
    """(whether the number agrees with its name, why) for NVFP4.

    2688 / amax is far above 1 for weights, amax / 2688 far below. The block scale that is largest is near 448 by
    design, so that the largest weight follows from either reading.
    """
    multiply, divide = 6 * largest_scale * value, 6 * largest_scale / value if value else float("inf")
    said, other = (divide, multiply) if divides else (multiply, divide)
    name = "weight_global_scale (divides)" if divides else "weight_scale_2 (multiplies)"
    text = f"{name} = {value:.6g}: largest weight {said:.4g} so, {other:.4g} the other way"
    plausible = 1e-4 < said < 1e3
    return plausible or not 1e-4 < other < 1e3, text + ("" if plausible else ", which is what weights look like")
