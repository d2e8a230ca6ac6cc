"""Rules field by field: what no word of a spelling says alone, and values that are refused."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case, variants
from conformance.cases.judgement import judged
from conformance.cases.variants import data

NOTES = {flag: variants.NOTES[flag] for flag in ("Word", "Spelling")}
FIELDS: dict[str, list[dict[str, object]]] = {
    "int4": [
        *({"bits": bits} for bits in (0, 1, 8, 9)),
        *({"range_mode": mode, "symmetric": symmetric} for mode in ("full", "nonsense") for symmetric in (True, False)),
        {"range_mode": "full", "bits": 1},
        {"range_mode": "full", "bits": 2},
        {"zero_kind": "float"},
        {"zero_kind": "nonsense"},
        {"rounding": "nonsense"},
        {"arithmetic": "nonsense"},
        {"scale_dtype": "float64"},
        {"min_scale": 0.3},
        {"min_range": 3.0},
        {"flat_range": 3.0},
        {"flat_range": 7.0, "flat_scale": 0.7},
        {"flat_scale": 0.7, "scale_dtype": "bfloat16"},
        {"flat_range": 2.0, "flat_scale": 0.7, "flat_zero": 1.0},
        {"arithmetic": "multiplier"},
        {"arithmetic": "reciprocal"},
        {"arithmetic": "reciprocal_multiplier"},
        {"arithmetic": "multiplier", "flat_scale": 0.7, "flat_range": 3.0},
        {"arithmetic": "multiplier", "min_scale": 0.3},
        {"range_mode": "signedmax", "min_scale": 0.3},
        {"range_mode": "signedmax", "min_range": 3.0},
        {"range_mode": "signedmax", "flat_range": 3.0, "flat_scale": 0.7},
        {"mirror": "negative"},
        {"range_mode": "signedmax", "arithmetic": "reciprocal"},
        {"range_mode": "restricted", "signed": False},
        {"symmetric": False, "include_zero": False},
        {"symmetric": False, "zero_rounded": "difference"},
        {"symmetric": False, "rounding": "half_up"},
        {"symmetric": False, "rounding": "half_up", "zero_rounded": "difference"},
        {"symmetric": False, "signed": False, "include_zero": False, "zero_kind": "mid", "scale_dtype": "float16"},
        {"signed": False, "bits": 8},
        {"signed": False, "bits": 1},
        {"mirror": "nonsense"},
        {"codes_from": "nonsense"},
        {"zero_added": "nonsense"},
        {"zero_rounded": "nonsense"},
    ],
    "nf4": [
        {"reciprocal": True},
        {"min_divisor": 0.5},
        {"min_scale": 0.5},
        {"zero_code": 3},
        {"flush": True},
        {"levels": [0.0]},
        {"levels": [0.0, 1.0]},
        {"levels": [1.0, 0.0]},
        {"levels": [0.0, 0.0]},
        {"levels": [0.0, 1e39]},
        {"levels": [-1e39, 0.0]},
        {"levels": [0.0, 3.4028234663852886e38]},
        {"levels": [n / 256 for n in range(256)]},
        {"levels": [n / 257 for n in range(257)]},
        {"levels": [-1.0, 1.0], "bounds": [0.0]},
        {"levels": [-1.0, 1.0], "bounds": [0.5]},
        {"levels": [-1.0, 0.0, 1.0], "bounds": [0.5]},
        {"levels": [-1.0, 0.0, 1.0], "bounds": [0.5, -0.5]},
        {"levels": [-1.0, 0.0, 1.0], "bounds": [0.5, 0.5]},
        {"levels": [-1.0, 0.0, 0.0], "bounds": [-0.5, 0.1]},
        {"levels": [1.0, -1.0, 0.0], "order": [1, 2, 0]},
        {"levels": [1.0, -1.0, 0.0], "order": [1, 1, 0]},
        {"levels": [1.0, -1.0], "order": [1, 0]},
        {"levels": [-1.0, 1.0], "order": [1, 0]},
        {"double": True, "scale_rule": None},
    ],
    "mxfp4": [
        {"scale_rule": "nonsense"},
        {"rounding": "nonsense"},
        {"logarithm": "float32"},
        {"zero_exponent": 5},
        {"logarithm": "float32", "scale_rule": "ceil"},
        {"logarithm": "float32", "scale_rule": "rne"},
        {"logarithm": "float32", "scale_rule": "rceil"},
        {"scale_rule": "nearest"},
        {"zero_sign": "nonsense"},
        {"even_bits": 2, "scale_rule": "even"},
        {"lowest_divisor": -3},
    ],
}


def cases() -> Iterator[Case]:
    """Each rule with one or two fields changed, on numbers that show it."""
    for head, settings in FIELDS.items():
        for fields in settings:
            label = "-".join(f"{k}-{_short(v)}" for k, v in fields.items())
            words = {"int4": "g16", "nf4": "b16", "mxfp4": ""}[head]
            for shown in ("steps", "zero-block", "one-sign") if head != "nf4" else ("steps", "subnormal"):
                params = {"words": words, "fields": fields} if words else {"fields": fields}
                x = {"x": data()[shown]}
                case, found = judged(
                    f"variant.{head}", "fields", f"{label}-{shown}", "encode", x, params, "Word", "Spelling"
                )
                if found or shown == "steps":
                    yield case
    tiny = data()["random"].copy()
    tiny[0, :16] *= np.float32(1e-39)  # its scale is subnormal: the reciprocal of that is infinite
    params = {"words": "g16", "fields": {"arithmetic": "reciprocal"}}
    yield judged("variant.int4", "fields", "reciprocal-tiny", "encode", {"x": tiny}, params, "Word")[0]


def _short(value: object) -> str:
    return "_".join(f"{v:g}" for v in value) if isinstance(value, list) and len(value) <= 3 else _long(value)


def _long(value: object) -> str:
    return f"{len(value)}-from-{value[0]:g}" if isinstance(value, list) else str(value)
