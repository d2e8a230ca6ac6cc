"""Inputs that formats find hard, 256 float32 each, and what each is there for."""

import numpy as np

NOTES = {
    "Random": {
        "kind": "ordinary",
        "description": "Unit Gaussian numbers.",
        "effect": "Ordinary weights get other bytes than the rule says.",
    },
    "HeavyTail": {
        "kind": "ordinary",
        "description": "Gaussian numbers raised to the third power: a few are far from the rest.",
        "effect": "Scales that come from outliers differ.",
    },
    "Tie": {
        "kind": "tie",
        "description": "Multiples of a quarter of a step: many quotients lie exactly between two codes.",
        "effect": "Ties go another way: visible wherever weights were stored in few bits before.",
    },
    "ZeroBlock": {
        "kind": "edge",
        "description": "Runs of zeros, long enough to fill groups.",
        "effect": "Zeros decode to something else, or a division by zero shows.",
    },
    "OneHot": {
        "kind": "edge",
        "description": "One number in zeros.",
        "effect": "The one weight that decides the scale is not kept.",
    },
    "Constant": {
        "kind": "edge",
        "description": "The same number everywhere, positive in one row and negative in the other.",
        "effect": "A range of zero width, or a range without zero, is mistreated.",
    },
    "Subnormal": {
        "kind": "edge",
        "description": "Numbers below 2^-126, some of them the smallest there is.",
        "effect": "Scales underflow, reciprocals overflow: garbage instead of zeros or small numbers.",
    },
    "PowerOfTwo": {
        "kind": "tie",
        "description": "The largest magnitude of a run of 16 is a power of two, or next to one.",
        "effect": "A scale that is a power of two is off by a factor of two.",
    },
    "OneSign": {
        "kind": "edge",
        "description": "Only positive numbers in one row, only negative ones in the other.",
        "effect": "Half of the codes is wasted or the range lacks zero.",
    },
    "Large": {
        "kind": "edge",
        "description": "Numbers up to 1e30, whose squares overflow.",
        "effect": "Infinity or NaN appears in a tensor that had none.",
    },
    "NotFinite": {
        "kind": "refusal",
        "description": "A NaN or an infinity among ordinary numbers.",
        "effect": "Accepting it stores an arbitrary code: the error surfaces far from its cause.",
    },
    "BadShape": {
        "kind": "refusal",
        "description": "No values at all, or a row that the group size does not divide.",
        "effect": "Silent padding or truncation changes the shape of a tensor.",
    },
}


def inputs(rows: int) -> dict[str, tuple[str, np.ndarray]]:
    """Name -> (flag, x (rows, 256 / rows) float32), rows 1 or 2; the numbers are the same."""
    return {name: (flag, x.reshape(rows, -1)) for name, (flag, x) in _inputs().items()}


def _inputs() -> dict[str, tuple[str, np.ndarray]]:
    rng = np.random.default_rng(2026)
    shape = (2, 128)
    gaussian = rng.standard_normal(shape, np.float32)
    zeros = gaussian.copy()
    zeros[0, :64], zeros[1, 64:96] = 0, -0.0
    one_hot = np.zeros(shape, np.float32)
    one_hot[0, 5], one_hot[1, 100] = 3.25, -0.7
    constant = np.stack([np.full(128, 0.3, np.float32), np.full(128, -1.7, np.float32)])
    tiny = (rng.integers(-64, 65, shape) * 2.0**-149).astype(np.float32)
    powers = rng.uniform(-0.9, 0.9, (2, 8, 16)).astype(np.float32)
    for row in range(2):
        for run in range(8):
            power = np.float32(2.0) ** np.float32(run - 4)
            powers[row, run] *= power
            near = (power, np.nextafter(power, np.float32(0)), np.nextafter(power, np.float32(np.inf)))
            powers[row, run, 2 * run] = near[run % 3] * (1 if row else -1)
    return {
        "random": ("Random", gaussian),
        "heavy-tail": ("HeavyTail", rng.standard_normal(shape, np.float32) ** 3),
        "tie": ("Tie", (rng.integers(-28, 29, shape) / 4).astype(np.float32)),
        "zero-block": ("ZeroBlock", zeros),
        "one-hot": ("OneHot", one_hot),
        "constant": ("Constant", constant),
        "subnormal": ("Subnormal", tiny),
        "power-of-two": ("PowerOfTwo", powers.reshape(shape)),
        "one-sign": ("OneSign", np.abs(gaussian) * np.array([[1], [-1]], np.float32)),
        "large": ("Large", (rng.standard_normal(shape) * 1e30).astype(np.float32)),
    }


def refused() -> dict[str, tuple[str, np.ndarray]]:
    """Name -> (flag, x): what an encoder must not accept."""
    nan, infinite = np.ones((1, 256), np.float32), np.ones((1, 256), np.float32)
    nan[0, 7], infinite[0, 3] = np.nan, -np.inf
    return {
        "nan": ("NotFinite", nan),
        "infinity": ("NotFinite", infinite),
        "empty": ("BadShape", np.zeros((0, 256), np.float32)),
    }


def shared() -> dict[str, np.ndarray]:
    """The inputs by the names of tensors: what vectors/v1/inputs.safetensors holds."""
    arrays = {f"{name}-{rows}": x for rows in (1, 2) for name, (_, x) in inputs(rows).items()}
    return arrays | {name: x for name, (_, x) in refused().items() if x.size}
