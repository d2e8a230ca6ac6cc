"""Ranges from batches of data, and the scale and zero point that follow from them."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Batches": {
        "kind": "ordinary",
        "description": "Three batches of 64 Gaussian numbers, each wider than the one before.",
        "effect": "Activations are quantized with a range that the data does not have.",
    },
    "OneBatch": {
        "kind": "ordinary",
        "description": "A single batch of 512 numbers with heavy tails.",
        "effect": "The range that a search or a share chooses is another one: outliers are kept or cut differently.",
    },
    "Positive": {
        "kind": "edge",
        "description": "No number below zero, as after a ReLU.",
        "effect": "Half of the codes are spent on values that do not occur, or zero is not a value.",
    },
    "Constant": {
        "kind": "edge",
        "description": "The same number everywhere.",
        "effect": "A range of zero width becomes a division by zero or a scale of nothing.",
    },
    "Zeros": {
        "kind": "edge",
        "description": "Nothing but zeros.",
        "effect": "The scale is 0, infinite or NaN, and so is what is divided by it.",
    },
    "Channels": {
        "kind": "ordinary",
        "description": "A range for each row.",
        "effect": "Channels share a range that suits one of them.",
    },
    "NotFinite": {
        "kind": "refusal",
        "description": "A NaN in the second batch.",
        "effect": "One bad batch of calibration data silently makes a range of NaN, or hides in a minimum.",
    },
}
SEARCHED = {"mean-squared-error": {"search": "llm-compressor"}, "mean-squared-error@gptq": {"search": "gptq"}}
SETTINGS: dict[str, dict[str, object]] = {
    "min-max": {},
    "moving-average": {"constant": 0.25},
    "percentile": {"percentile": 97.0, "bins": 256},
    "percentile@modelopt": {"percentile": 97.0, "bins": 256},
    "entropy": {"bits": 4, "bins": 128},
    **SEARCHED,
}
BY_CHANNEL = ("min-max", "moving-average", *SEARCHED)
SCHEMES = ("int8", "uint8")


def cases() -> Iterator[Case]:
    """Each observer on each kind of data, for a symmetric and an asymmetric scheme."""
    for member, settings in SETTINGS.items():
        for scheme in SCHEMES:
            params = {**settings, "scheme": scheme}
            for label, (flag, batches) in _data().items():
                yield _case(member, scheme, label, batches, params, flag)
            if member in BY_CHANNEL:
                rows = [batch.reshape(4, -1) for batch in _data()["batches"][1]]
                by_row = params | {"scheme": f"{scheme}-channel"}
                yield _case(member, scheme, "channels", rows, by_row, "Channels")
        broken = [batch.copy() for batch in _data()["batches"][1]]
        broken[1][5] = np.nan
        yield _case(member, "refuse", "nan", broken, {**settings, "scheme": "int8"}, "NotFinite", "invalid")
    for label in ("batches", "one-batch", "positive"):
        flag, batches = _data()[label]
        everything = np.concatenate(batches)
        bin_width = float(everything.max() - everything.min()) / 256
        # a search in float32 may end a few steps from one in float64: two bins, and the scale that follows from them
        words = {"lo": ("max_abs", 2 * bin_width), "hi": ("max_abs", 2 * bin_width)}
        params = {"bins": 256, "scheme": "uint8"}
        yield _case("histogram", "uint8", label, batches, params, flag, words=words | {"scale": words["lo"]})


def _case(member, group, label, batches, params, flag, result="valid", words=None) -> Case:
    inputs = {f"batch{i}": batch for i, batch in enumerate(batches)}
    return Case(f"observer.{member}", group, label, "range", inputs, params, (flag,), result, words or {})


def _data() -> dict[str, tuple[str, list[np.ndarray]]]:
    rng = np.random.default_rng(7)
    batches = [rng.standard_normal(64, np.float32) * np.float32(k) for k in (1, 1.5, 2)]
    tails = rng.standard_normal(512, np.float32) ** 3
    return {
        "batches": ("Batches", batches),
        "one-batch": ("OneBatch", [tails]),
        "positive": ("Positive", [np.abs(batch) for batch in batches]),
        "constant": ("Constant", [np.full(64, 0.75, np.float32)]),
        "zeros": ("Zeros", [np.zeros(64, np.float32)]),
    }
