"""Caches of keys and values in few bits: token by token, KIVI, KVQuant; and the fit of KVQuant's tables."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Tokens": {
        "kind": "ordinary",
        "description": "Tokens that come in one call, or in several.",
        "effect": "What the model attends to depends on how a prompt was cut, or is rounded in the wrong direction.",
    },
    "Window": {
        "kind": "edge",
        "description": "As many tokens as the window holds, one fewer, one more.",
        "effect": "Tokens are rounded too early, or kept too long, or the last of a group is lost.",
    },
    "Flat": {
        "kind": "edge",
        "description": "Groups without extent, of zeros, or of numbers so close that their step underflows.",
        "effect": "0 / 0: NaN in a cache that held ordinary numbers.",
    },
    "Tie": {
        "kind": "tie",
        "description": "Numbers half way between two codes or levels, and outliers exactly on the bound.",
        "effect": "Ties go another way than in the published code.",
    },
    "Fit": {
        "kind": "ordinary",
        "description": "A table of levels from calibration data, with and without weights and Q-Norm.",
        "effect": "Levels suit other data, and perplexity suffers.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Numbers that float16 does not hold, shapes that change, settings out of range.",
        "effect": "Infinity enters the cache and stays.",
    },
}


def cases() -> Iterator[Case]:
    """Each cache by itself."""
    yield from _kivi()
    yield from _token()
    yield from _kvquant()
    yield from _fits()


def shared() -> dict[str, np.ndarray]:
    """A sequence long enough for KIVI's own settings, by the name of its tensor in inputs.safetensors."""
    return {"cache-long": np.random.default_rng(61).standard_normal((130, 1, 32)).astype(np.float32)}


def _case(member: str, group: str, label: str, op: str, inputs: Mapping[str, np.ndarray], params: dict,
    flag: str) -> Case:  # fmt: skip
    return judged(f"cache.{member}", group, label, op, inputs, params, flag, "Refused")[0]


def _cut(k: np.ndarray, v: np.ndarray, *places: int) -> dict[str, np.ndarray]:
    """k0, v0, k1, v1 ...: the tokens, cut at these places."""
    ends = [0, *places, len(k)]
    pairs = [(k[a:b], v[a:b]) for a, b in pairwise(ends)]
    return {f"{name}{i}": np.ascontiguousarray(x) for i, pair in enumerate(pairs) for name, x in zip("kv", pair)}


def _data(tokens: int, heads: int = 2, dim: int = 4, seed: int = 62) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    k, v = rng.standard_normal((2, tokens, heads, dim)).astype(np.float32)
    k[..., 1] *= 20
    return k, v


def _kivi() -> Iterator[Case]:
    small = {"bits": 2, "group": 2, "residual": 4}
    k, v = _data(11)
    for label, places in {"once": (), "one-by-one": range(1, 11), "cut": (3, 4, 9)}.items():
        yield _case("kivi", "keep", label, "keep", _cut(k, v, *places), small, "Tokens")
    for bits in (1, 3, 4, 8):
        params = {"bits": bits, "group": 4, "residual": 4}
        yield _case("kivi", "bits", str(bits), "keep", _cut(k[:9], v[:9]), params, "Tokens")
    many = shared()["cache-long"][:32].reshape(32, 2, 16)
    params = {"bits": 8, "group": 16, "residual": 16}
    yield _case("kivi", "bits", "8-many", "keep", {"k0": many, "v0": many}, params, "Tokens")
    for bits in (0, 9, -1):
        yield _case("kivi", "checks", f"bits-{bits}", "keep", _cut(k, v), {**small, "bits": bits}, "Tokens")
    for tokens in (1, 3, 4, 5, 8, 9):
        yield _case("kivi", "window", str(tokens), "keep", _cut(k[:tokens], v[:tokens]), small, "Window")
    yield _case("kivi", "window", "of-two", "keep", _cut(k, v), {**small, "residual": 2}, "Window")
    yield _case("kivi", "window", "groups-of-four", "keep", _cut(k, v), {**small, "group": 4}, "Window")
    yield _case("kivi", "window", "wider-values", "keep", _cut(k[..., :3], v), small, "Window")
    wide = shared()["cache-long"]
    yield _case("kivi", "window", "usual", "size", {"k0": wide, "v0": wide}, {}, "Window")
    yield _case("kivi", "window", "usual-2", "size", {"k0": wide[:128].copy(), "v0": wide[:128].copy()}, {}, "Window")
    flat, ties = np.full((4, 1, 4), 0.7, np.float32), np.arange(16, dtype=np.float32).reshape(4, 1, 4) / 2
    ties[:, 0, 0], ties[:, 0, 3] = 0, 3
    fine = np.float32([0, 6e-8, 1.2e-7, 6e-5]).reshape(1, 1, 4) * np.ones((4, 1, 1), np.float32)
    steps = {"bits": 2, "group": 4, "residual": 4}
    for label, x, flag in (("constant", flat, "Flat"), ("zeros", flat * 0, "Flat"), ("fine", fine, "Flat"),
                           ("ties", ties, "Tie"), ("largest", flat * 0 + np.float32(65504), "Flat"),
                           ("clipped", flat * 0 + np.float32([0, 6e-8, 1.2e-7, 2.4e-7]), "Flat"),
                           ("ramp", np.float32([-7, 0.5, 1.5, 100]).reshape(1, 1, 4) + flat, "Tie")):  # fmt: skip
        both = np.concatenate([x, x])
        yield _case("kivi", "numbers", label, "keep", {"k0": both, "v0": both}, steps, flag)
    turned = np.ascontiguousarray(np.tile(fine, (2, 1, 1)).reshape(2, 4, 4).swapaxes(1, 2).reshape(8, 1, 4))
    yield _case("kivi", "numbers", "fine-channels", "keep", {"k0": turned, "v0": turned}, steps, "Flat")
    eight = {"bits": 8, "group": 4, "residual": 4}
    for label, x in {"wide": [-65504, 0, 1, 65504], "widest": [-32752, 0, 1, 32752], "too-wide": [-32752, 0, 1, 32784],
                     "large": [0, 1, 2, 65520], "nan": [0, 1, 2, np.nan]}.items():  # fmt: skip
        x = np.tile(np.float32(x), (8, 1, 1))
        ordinary = np.ones_like(x)
        yield _case("kivi", "range", f"values-{label}", "keep", {"k0": ordinary, "v0": x}, eight, "Flat")
        yield _case("kivi", "range", f"window-{label}", "keep", {"k0": ordinary[:3], "v0": x[:3]}, eight, "Flat")
        turned = np.ascontiguousarray(x.reshape(2, 4, 4).swapaxes(1, 2).reshape(8, 1, 4))
        yield _case("kivi", "range", f"keys-{label}", "keep", {"k0": turned, "v0": ordinary}, eight, "Flat")
    yield from _shapes("kivi", k, v, small)
    odd = {"group": 2, "residual": 4}
    yield _case("kivi", "checks", "residual", "keep", _cut(k, v), {**small, "residual": 3}, "Tokens")
    yield _case("kivi", "checks", "no-residual", "keep", _cut(k, v), {**small, "residual": 0}, "Tokens")
    yield _case("kivi", "checks", "odd-values", "keep", _cut(k, v[..., :3]), odd, "Tokens")


def _shapes(member: str, k: np.ndarray, v: np.ndarray, params: dict, extra: Mapping = {}) -> Iterator[Case]:
    """What no cache takes."""
    later = {"k0": k[:2], "v0": v[:2]}
    for label, given in {
        "nothing": {}, "flat": {"k0": k[0], "v0": v[0]}, "flat-values": {"k0": k, "v0": v[:, :, 0].copy()},
        "lengths": {"k0": k, "v0": v[1:]}, "empty": {"k0": k[:0], "v0": v[:0]},
        "other-heads": {**later, "k1": k[2:, :1].copy(), "v1": v[2:]},
        "other-values": {**later, "k1": k[2:], "v1": v[2:, :, :2].copy()},
        "integers": {"k0": k.astype(np.int32), "v0": v},
    }.items():  # fmt: skip
        for op in ("keep",) if label != "nothing" else ("keep", "size"):
            yield _case(member, "checks", f"{label}-{op}", op, {**given, **extra}, params, "Tokens")
    for name in "kv":
        broken = {"k0": k.copy(), "v0": v.copy()}
        broken[f"{name}0"][1, 0, 1] = np.nan
        yield _case(member, "checks", f"nan-{name}", "keep", {**broken, **extra}, params, "Tokens")


def _token() -> Iterator[Case]:
    k, v = _data(3)
    for label, params in {
        "int8": {"keys": "int8-token"}, "two": {"keys": "uint4-token", "values": "int4-g4"},
        "shared": {"keys": "int8-token", "values": "uint4-token", "shared_heads": True},
        "fp8": {"keys": "fp8_e4m3fn-token"}, "channel": {"keys": "int8-channel"}, "tensor": {"keys": "int8"},
        "value-tensor": {"keys": "int8-token", "values": "int8"}, "cast": {"keys": "fp8_e4m3fn-cast"},
    }.items():  # fmt: skip
        yield _case("token", "keep", label, "keep", _cut(k, v, 1), params, "Tokens")
    for shared_heads in (False, True):
        params = {"keys": "uint3-token", "shared_heads": shared_heads}
        yield _case("token", "keep", f"narrow-values-{shared_heads}", "keep", _cut(k, v[:, :1]), params, "Tokens")
    yield from _shapes("token", k, v, {"keys": "int8-token"})


LEVELS = np.float32([-1, -0.5, 0.25, 0.875])


def _tables(k: np.ndarray) -> dict[str, np.ndarray]:
    """Tables whose bounds make quotients exact; one channel has no extent."""
    lower, upper = np.full(k.shape[1:], -1, np.float32), np.full(k.shape[1:], 3, np.float32)
    lower[0, 1], upper[0, 1] = -20.5, 12
    lower[1, 2], upper[1, 2] = 0.5, 0.5
    return {"key_levels": LEVELS, "key_lower": lower, "key_upper": upper,
            "value_levels": np.float32([-0.75, -0.25, 0.3, 1])}  # fmt: skip


def _kvquant() -> Iterator[Case]:
    k, v = _data(6)
    k[4, 1, 2] = 0.5
    k[3, 0] = [3, 12, -1, 3.0000002]
    k[5, 0] = [0, 1, -0.5, 2]  # u = -0.5 at 0: and half way between levels
    v[2] = 0.25
    v[3, 0] = [4, 4, 4, -1]
    tables = _tables(k)
    for label, places in {"once": (), "one-by-one": range(1, 6), "cut": (2,)}.items():
        yield _case("kvquant", "keep", label, "keep", {**_cut(k, v, *places), **tables}, {"outliers": 0.25}, "Tokens")
    for first in (0, 1, 2, 6, 7):
        for label, places in {"": (), "-cut": (1, 2)}.items():
            given, params = {**_cut(k, v, *places), **tables}, {"outliers": 0.5, "first": first}
            yield _case("kvquant", "first", f"{first}{label}", "keep", given, params, "Window")
    for share in (0.0, 0.1, 0.5, 0.9):
        yield _case("kvquant", "outliers", str(share), "keep", {**_cut(k, v), **tables}, {"outliers": share}, "Tie")
    more = {**tables, "key_levels": np.linspace(-1, 1, 9, dtype=np.float32), "value_levels": np.float32([0, 1, 2])}
    yield _case("kvquant", "outliers", "nine-levels", "keep", {**_cut(k, v), **more}, {}, "Tie")
    one = {**tables, "key_levels": np.float32([0.5]), "value_levels": np.float32([-0.5, 0.5])}
    yield _case("kvquant", "outliers", "one-level", "keep", {**_cut(k, v), **one}, {"outliers": 0.3}, "Tie")
    for label, x in {"65504": 65504, "65519": 65519, "65520": 65520, "1e38": 3e38}.items():
        for name, which in (("k0", k), ("v0", v)):
            for token in (0, 3):
                given = {**_cut(k, v), **tables, name: which.copy()}
                given[name][token, 0, 0] = x
                yield _case("kvquant", "range", f"{name}-{token}-{label}", "keep", given, {"outliers": 0.4}, "Flat")
    flat = {**_cut(k, np.full_like(v, 60000)), **tables}
    yield _case("kvquant", "range", "constant-values", "keep", flat, {"outliers": 0.2}, "Flat")
    wide = v.copy()
    wide[3, 0] = [-3e38, 3e38, 0, 1]
    yield _case("kvquant", "range", "wide-values", "keep", {**_cut(k, wide), **tables}, {}, "Flat")
    tiny = {**_cut(k, v * np.float32(1e-9)), **tables}
    yield _case("kvquant", "range", "tiny-values", "keep", tiny, {"outliers": 0.2}, "Flat")
    yield _case("kvquant", "checks", "no-bounds", "keep",
                {**_cut(k, v), "key_levels": LEVELS, "value_levels": LEVELS}, {}, "Tokens")  # fmt: skip
    yield _case("kvquant", "checks", "heads", "keep", {**_cut(k[:, :1], v[:, :1]), **tables}, {}, "Tokens")
    yield _case("kvquant", "checks", "dim", "keep", {**_cut(k[:, :, :3], v), **tables}, {}, "Tokens")
    yield from _shapes("kvquant", k, v, {"outliers": 0.1}, tables)


def _fits() -> Iterator[Case]:
    rng = np.random.default_rng(63)
    x = (rng.integers(-64, 65, (9, 2, 4)) / 16).astype(np.float32)
    x[:, 1, 3] = 0.75
    x[4, 0] *= 4
    weights = (rng.integers(0, 9, x.shape) / 4).astype(np.float32)
    thirds = np.random.default_rng(64).standard_normal((7, 1, 5)).astype(np.float32)
    for of in ("keys", "values"):
        for bits in (1, 2, 3):
            yield _case("kvquant", "fit", f"{of}-{bits}", "fit", {"x": x}, {"of": of, "bits": bits}, "Fit")
        for share in (0.0, 0.25, 0.5, 0.999, 1.0, -0.1):
            params = {"of": of, "bits": 2, "outliers": share}
            yield _case("kvquant", "fit", f"{of}-outliers-{share}", "fit", {"x": x}, params, "Fit")
        params = {"of": of, "bits": 2, "outliers": 0.2}
        yield _case("kvquant", "fit", f"{of}-weights", "fit", {"x": x, "weights": weights}, params, "Fit")
        for number, given in enumerate(({"x": x}, {"x": x, "weights": weights})):
            norm = {**params, "q_norm": True}
            yield _case("kvquant", "fit", f"{of}-q-norm-{number}", "fit", given, norm, "Fit")
        flat = {"x": np.full((3, 1, 2), 0.7, np.float32)}
        yield _case("kvquant", "fit", f"{of}-flat", "fit", flat, {"of": of, "bits": 1, "q_norm": True}, "Flat")
        for share in (0.1, 0.3):
            params = {"of": of, "bits": 2, "outliers": share}
            yield _case("kvquant", "fit", f"{of}-thirds-{share}", "fit", {"x": thirds}, params, "Fit")
        for label, given, bits in (("0-bits", {"x": x}, 0), ("9-bits", {"x": x}, 9), ("8-bits", {"x": x}, 8),
                                   ("matrix", {"x": x[0]}, 2), ("weights", {"x": x, "weights": weights[0]}, 2),
                                   ("nan", {"x": x * np.float32(np.nan)}, 2), ("empty", {"x": x[:0]}, 2)):  # fmt: skip
            yield _case("kvquant", "checks", f"fit-{of}-{label}", "fit", given, {"of": of, "bits": bits}, "Fit")
