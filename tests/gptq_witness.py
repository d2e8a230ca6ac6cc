"""GPTQ once more, as optimal brain quantization in an order that all rows share: an inverse Hessian for every step.

Where blocks, orders, statistics and ranges of other people's code decide which weights a scale is made of, that is done
by its definition: the weights as they were when the block began, a group of neighbours in the order of the sweep.
"""

import layer_solvers
import naive_linear
import naive_spelling
import numpy as np

from conformance.protocol import Unsupported

DEFAULTS = {
    "damp": 0.01, "order": "natural", "static_groups": False, "statistics": "fresh", "ranges": "format", "block": 128,
}  # fmt: skip
DIALECTS = {
    "": {},
    "ist": {"statistics": "stale", "ranges": "ist"},
    "gptqmodel": {"damp": 0.05, "order": "group-aware", "statistics": "stale", "ranges": "ist"},
    "llm-compressor": {"order": "activation", "static_groups": True},
}
SILENT = {"precision": "exact", "hessian": None, "fallback": None, "damp_step": None, "scheme": None}  # no codes change


class Sweep:
    """One layer under one scheme."""

    def __init__(self, dialect, params, inputs):
        said = {**DEFAULTS, **DIALECTS[dialect], **{k: v for k, v in params.items() if k not in SILENT}}
        if set(said) != set(DEFAULTS):
            raise Unsupported(f"{sorted(set(said) - set(DEFAULTS))}")
        self.said, scheme = said, naive_spelling.parse(params["scheme"])
        if not scheme.head.lstrip("u").startswith("int"):
            raise Unsupported(params["scheme"])
        X = inputs["X"].reshape(-1, inputs["X"].shape[-1])
        self.bits, self.signed = int(scheme.head[-1]), scheme.head[0] == "i"
        self.settings = {"bits": self.bits, "signed": self.signed, "symmetric": self.signed} | scheme.fields
        H, dead = layer_solvers.hessian(X, said["damp"])
        self.W, self.H = np.where(dead, 0, np.float64(inputs["W"])), H
        self.scales, self.places = naive_spelling.members(self.W.shape, scheme.grain)
        self.ins = self.W.shape[1]
        self.shared = scheme.grain == "tensor"  # one scale for all rows
        self.size = self.ins if self.shared else len(self.places[0])
        outside = self.ins % self.size or scheme.grain.startswith("channel1") or "x" in scheme.grain
        if outside or not np.isfinite(self.W).all():
            raise Unsupported("refusals")
        self.order = self.ordered(np.diagonal(H))
        by_place = said["order"] == "activation" and not said["static_groups"]
        self.group = np.empty(self.ins, int)
        self.group[self.order] = np.arange(self.ins) // self.size if by_place else self.order // self.size
        self.by_place = by_place and self.size < self.ins

    def ordered(self, diagonal):
        """Which column comes when; the lower one first where the diagonal is the same."""
        descending = lambda values: sorted(range(len(values)), key=lambda j: -values[j])
        if self.said["order"] == "natural":
            return np.arange(self.ins)
        if self.said["order"] == "activation":
            return np.array(descending(diagonal))
        if self.said["order"] != "group-aware":
            raise Unsupported("refusals")
        parts = [range(start, start + self.size) for start in range(0, self.ins, self.size)]
        first = descending([max(diagonal[list(part)]) for part in parts])
        return np.array([part for g in first for part in sorted(parts[g], key=lambda j: -diagonal[j])])

    def grid(self, rows):
        """(scale, zero) of each row of members; one for all where they share it."""
        rows = rows.reshape(1, -1) if self.shared else rows
        found = [self.fitted([float(v) for v in np.float32(row)]) for row in rows]
        return np.array(found * (len(self.W) if self.shared else 1))

    def fitted(self, row):
        """By the format, or as quant.py of IST-DASLab."""
        if self.said["ranges"] == "ist":
            if self.settings.get("range_mode", "half") != "half" or self.bits == 1:
                raise Unsupported("refusals")
            lo, hi = min(*row, 0.0), max(*row, 0.0)
            if self.settings["symmetric"]:
                hi = hi / 2 if lo == 0 else max(-lo, hi)
                lo = -hi
            row = [-1.0, 1.0] if lo == hi == 0 else [lo, hi]
        return naive_linear.Group(row, self.settings).encoded()[1:]

    def run(self):
        """codes, scale, zero_point, g_idx."""
        now, left, codes = self.W.copy(), np.linalg.inv(self.H), np.zeros(self.W.shape, np.int64)
        grids, before = {}, None
        if self.said["static_groups"]:
            grids = {g: self.grid(self.W[:, self.group == g]) for g in set(self.group.tolist())}
        for place, j in enumerate(self.order):
            if place % self.said["block"] == 0:
                before = now.copy()
            g = self.group[j]
            if g not in grids:
                source = before if self.said["statistics"] == "stale" else now
                members = [k for k in self.order if self.group[k] == g]
                grids[g] = self.grid(source[:, members])
            scale, zero = grids[g].T
            codes[:, j] = self.coded(now[:, j], scale, zero)
            error = (now[:, j] - (codes[:, j] - zero) * scale) / left[j, j]
            now -= np.outer(error, left[j])
            left = left - np.outer(left[:, j], left[j]) / left[j, j]
        return self.stored(codes, grids)

    def coded(self, w, scale, zero):
        """Of one column."""
        low = -(2 ** (self.bits - 1)) if self.signed else 0
        high = low + 2**self.bits - 1
        if self.settings["symmetric"] and self.bits == 1:
            return np.where(w < 0, low, high)
        low += self.settings.get("range_mode") == "restricted" and self.settings["symmetric"]
        with np.errstate(all="ignore"):
            q = np.where(scale == 0, 0, w / scale)
        before = self.settings.get("zero_added") == "before"
        q = np.rint(q + zero) if before else np.rint(q) + zero
        return np.clip(q, low, high).astype(np.int64)  # toward zero, where a zero point is no integer

    def stored(self, codes, grids):
        """In the shapes of the format."""
        dtype = np.int8 if self.signed else np.uint8
        both = np.stack([grids[g] for g in range(self.ins // self.size)], axis=1)  # (out, groups, 2)
        both = both[:1] if self.shared else both
        whole = self.settings.get("zero_kind", "int") == "int" and not (self.settings["symmetric"] and self.bits == 1)
        zero = np.float32(both[..., 1]).astype(dtype if whole else np.float32)
        found = {
            "codes": codes.astype(dtype),
            "scale": np.float32(both[..., 0]).reshape(self.scales),
            "zero_point": zero.reshape(-1)[0] if self.settings["symmetric"] else zero.reshape(self.scales),
        }
        return found | ({"g_idx": self.group.astype(np.int32)} if self.by_place else {})


def run(dialect, params, inputs):
    """quantize."""
    try:
        return Sweep(dialect, params, inputs).run()
    except (KeyError, IndexError, ValueError, np.linalg.LinAlgError) as why:
        raise Unsupported(f"refusals: {why}") from why
