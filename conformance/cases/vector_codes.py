"""Decoders of vector and trellis codes: AQLM, E8P of QuIP#, QTIP, EXL3, VPTQ."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Codes": {
        "kind": "ordinary",
        "description": "Random codes of a small layer.",
        "effect": "A checkpoint decodes to other weights: the model speaks nonsense, or is a little worse.",
    },
    "Patterns": {
        "kind": "total",
        "description": "Every pattern with one set of signs, or every set of signs with a few patterns.",
        "effect": "One of 65,536 codes stands for another point: one weight in a few thousand is wrong.",
    },
    "Rate": {
        "kind": "ordinary",
        "description": "Another number of bits a weight.",
        "effect": "Files of this rate alone decode to noise.",
    },
    "Flat": {
        "kind": "edge",
        "description": "The same weight everywhere between the transforms, so that no order of a sum can be seen.",
        "effect": "The scale of the transforms, or a scale of a row or column, is off.",
    },
    "NotFinite": {
        "kind": "edge",
        "description": "Scales or centroids that are infinite, as files may hold them.",
        "effect": "A file that another reader takes is refused, or a warning ends a program.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Tensors that are missing, of another shape or type, indices past a codebook.",
        "effect": "Memory beside a codebook is read, or a layer is cut without a word.",
    },
}
EXACT = {"values": "exact"}


def cases() -> Iterator[Case]:
    """Each family by itself."""
    yield from _aqlm()
    yield from _e8p()
    yield from _qtip()
    yield from _exl3()
    yield from _vptq()


def shared() -> dict[str, np.ndarray]:
    """Trellises of whole layers by the names of tensors in inputs.safetensors."""
    random = np.random.default_rng(56).integers(-32768, 32768, (8, 16, 16)).astype(np.int16)
    flat = np.zeros((8, 16, 16), np.int16)
    return {"exl3-random": random, "exl3-flat": flat, "exl3-flat-square": flat[:, :8].copy()}


def _case(member: str, group: str, label: str, op: str, inputs: Mapping[str, np.ndarray], params: dict, flag: str,
          words: object = None) -> Case:  # fmt: skip
    case, found = judged(f"vector.{member}", group, label, op, inputs, params, flag, "Refused")
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    return Case(**{**fields, "words": words or {}}) if found else case


def _aqlm() -> Iterator[Case]:
    rng = np.random.default_rng(51)
    for label, (M, bits, rows, columns, dtype) in {
        "one-book": (1, 5, 1, 8, np.int16), "two-books": (2, 8, 1, 8, np.int8), "three-of-two-rows": (3, 4, 2, 4,
        np.int8),
        "one-bit": (2, 1, 1, 2, np.int8), "unsigned": (2, 3, 1, 4, np.uint8),
    }.items():  # fmt: skip
        books = (rng.integers(-32, 33, (M, 1 << bits, rows, columns)) / 8).astype(np.float16)
        k = rng.integers(0, 1 << bits, (3, 4, M))
        k[0, 0], k[0, 1] = 0, (1 << bits) - 1
        k[1, 0], k[1, 1] = (1 << bits) // 2, (1 << bits) // 2 - 1
        signed = np.dtype(dtype).kind == "i" and bits > 1
        codes = np.where(signed & (k >= 1 << (bits - 1)), k - (1 << bits), k).astype(dtype)
        scales = rng.uniform(0.5, 2, (3, 1, 1, 1)).astype(np.float16)
        given = {"codes": codes, "codebooks": books, "scales": scales}
        yield _case("aqlm", "decode", label, "decode", given, {}, "Codes")
    books = rng.standard_normal((2, 4, 1, 2)).astype(np.float16)
    good = {"codes": rng.integers(-2, 2, (2, 3, 2)).astype(np.int8), "codebooks": books,
            "scales": np.ones((2, 1, 1, 1), np.float16)}  # fmt: skip
    wide = rng.standard_normal((2, 4, 1, 2)).astype(np.float32) * np.float32(1 / 3)
    yield _case("aqlm", "decode", "float32-books", "decode", {**good, "codebooks": wide}, {}, "Codes")
    scales = np.float32([[[[1 / 3]]], [[[0.7]]]])
    yield _case("aqlm", "decode", "float32-scales", "decode", {**good, "scales": scales}, {}, "Codes")
    three = {**good, "codebooks": books[:, :3]}
    for label, given in {
        "flat-codes": {**good, "codes": good["codes"][0]}, "flat-books": {**good, "codebooks": books[0]},
        "books": {**good, "codebooks": books[:1]}, "scales": {**good, "scales": good["scales"][:1]},
        "flat-scales": {**good, "scales": good["scales"][:, 0]}, "float": {**good, "codes": good["codes"] * 1.0},
        "three": {**three, "codes": np.minimum(good["codes"], 0)}, "one": {**good, "codebooks": books[:, :1],
        "codes": good["codes"] * np.int8(0)},
        "below": {**good, "codes": good["codes"] * 0 - 3}, "above": {**good, "codes": good["codes"] * 0 + 4},
        "past-16-bits": {**good, "codes": good["codes"].astype(np.int32) + 65536},
        "last": {**good, "codes": good["codes"] * 0 + 3}, "least": {**good, "codes": good["codes"] * 0 - 2},
        "empty": {**good, "codes": good["codes"][:, :0]},
    }.items():  # fmt: skip
        yield _case("aqlm", "checks", label, "decode", given, {}, "Codes")


def _e8p() -> Iterator[Case]:
    pattern, sign = np.arange(256) << 8, np.arange(256)
    for label, codes in {
        "patterns": pattern[None], "odd-signs": pattern.reshape(2, 128) | 1, "signs": sign.reshape(4, 64) | 0x1700,
    }.items():  # fmt: skip
        yield _case("e8p", "decode", label, "decode", {"codes": codes.astype(np.uint16)}, {}, "Patterns")
    yield _case("e8p", "checks", "int32-codes", "decode", {"codes": pattern.astype(np.int32)}, {}, "Codes")
    rng = np.random.default_rng(52)
    packed = rng.integers(-(2**63), 2**63 - 1, (32, 4), endpoint=True)
    yield _case("e8p", "unpack", "random", "unpack", {"packed": packed}, {}, "Codes")
    yield _case("e8p", "unpack", "one-tile", "unpack", {"packed": packed[:16, :2].copy()}, {}, "Codes")
    for label, array in {
        "eight-rows": packed[:8], "three-columns": packed[:, :3].copy(), "flat": packed[0], "empty": packed[:0],
        "int32": packed.astype(np.int32), "seventeen": packed[:17],
    }.items():  # fmt: skip
        yield _case("e8p", "checks", label, "unpack", {"packed": array}, {}, "Codes")


def _qtip() -> Iterator[Case]:
    rng = np.random.default_rng(53)
    draw = lambda *shape: rng.integers(0, 65536, shape).astype(np.uint16)
    table = (rng.integers(-64, 65, (8, 2)) / 16).astype(np.float16)
    for label, (words, params, given) in {
        "3inst": (draw(1, 16), {"shape": [16, 16], "bits": 1}, {}),
        "3inst-2": (draw(2, 32), {"shape": [16, 32], "bits": 2, "function": "3inst"}, {}),
        "1mad": (draw(2, 16), {"shape": [32, 16], "bits": 1, "function": "1mad"}, {}),
        "hyb": (draw(1, 32), {"shape": [16, 16], "bits": 2, "function": "hyb"}, {"table": table}),
        "hyb-one-bit": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"}, {"table": table[:2]}),
        "hyb-float32": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"},
                        {"table": table.astype(np.float32) / 3}),
        "hyb-without-table": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"}, {}),
        "hyb-three-rows": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"}, {"table": table[:3]}),
        "hyb-one-row": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"}, {"table": table[:1]}),
        "hyb-wide": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"}, {"table": table.reshape(4, 4)}),
        "hyb-deep": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "hyb"},
                     {"table": np.zeros((1 << 16, 2), np.float16)[:2].repeat(4, 0)[:, :1]}),
        "unknown": (draw(1, 16), {"shape": [16, 16], "bits": 1, "function": "2inst"}, {}),
        "odd-shape": (draw(1, 16), {"shape": [16, 17], "bits": 1}, {}),
        "odd-rows": (draw(1, 16), {"shape": [15, 16], "bits": 1}, {}),
        "few-words": (draw(1, 15), {"shape": [16, 16], "bits": 1}, {}),
        "few-tiles": (draw(1, 16), {"shape": [16, 32], "bits": 1}, {}),
        "int16": (draw(1, 16).view(np.int16), {"shape": [16, 16], "bits": 1}, {}),
    }.items():  # fmt: skip
        yield _case("qtip", "decode", label, "decode", {"words": words, **given}, params, "Codes")
    words = draw(2, 3)
    for step in (0, 1, 2, 3, 5, 6, 8, 16, 17, 24):
        yield _case("qtip", "states", str(step), "states", {"words": words}, {"step": step}, "Rate")
    for label, array in {"flat": words[0], "empty": words[:, :0], "int16": words.view(np.int16),
                         "one": words[:1, :1]}.items():  # fmt: skip
        yield _case("qtip", "states", label, "states", {"words": array}, {"step": 4}, "Codes")


def _exl3() -> Iterator[Case]:
    rng = np.random.default_rng(54)
    draw = lambda *shape: rng.integers(-32768, 32768, shape).astype(np.int16)
    for function in ("3inst", "mcg", "mul1"):
        for k in (1, 2, 3, 4, 5, 6, 7, 8, 1.5, 2.5, 3.5):
            if function == "3inst" or k in (1, 4, 8) or function == "mul1":
                params = {"function": function} if function != "3inst" else {}
                given = {"trellis": draw(1, 1, int(16 * k))}
                yield _case("exl3", "tiles", f"{function}-{k:g}", "tiles", given, params, "Rate")
    yield _case("exl3", "tiles", "two-by-three", "tiles", {"trellis": draw(2, 3, 16)}, {"function": "mul1"}, "Codes")
    for label, array in {"odd": draw(1, 1, 33), "nine": draw(1, 1, 144), "flat": draw(1, 16), "int32": draw(1, 1,
        16) * 1,
                         "empty": draw(0, 1, 16), "half": draw(1, 1, 8), "four-and-half": draw(1, 1,
                         72)}.items():  # fmt: skip
        array = array.astype(np.int32) if label == "int32" else array
        yield _case("exl3", "checks", label, "tiles", {"trellis": array}, {"function": "mul1"}, "Codes")
    yield _case("exl3", "checks", "hyb", "tiles", {"trellis": draw(1, 1, 16)}, {"function": "hyb"}, "Codes")
    yield from _exl3_layers(rng, draw)


def _exl3_layers(rng: np.random.Generator, draw) -> Iterator[Case]:
    half = lambda *shape: rng.choice(np.float16([-2, -1, -0.5, 0.5, 1, 3]), shape)
    layer = {"trellis": shared()["exl3-random"], "suh": half(128), "svh": half(256)}
    flat = {**layer, "trellis": shared()["exl3-flat"]}
    signs = {"trellis": flat["trellis"], "su": draw(8), "sv": draw(16)}
    mark = {"mcg": np.int32(7), "mul1": np.int32(0)}
    every, bound = {"every": 9}, {"values": ("relative", 1e-6)}  # two sums of 128 terms in float32
    same = {"values": ("ulp", 0)}  # sums of equal terms: no order, and a zero without a sign
    yield _case("exl3", "layer", "random", "weight", layer, every, "Codes", bound)
    for name in mark:
        yield _case("exl3", "layer", name, "weight", {**layer, name: mark[name]}, every, "Codes", bound)
    yield _case("exl3", "flat", "scales", "weight", flat, {"every": 32}, "Flat", same)
    yield _case("exl3", "flat", "scales-mul1", "weight", {**flat, "mul1": mark["mul1"]}, {"every": 32}, "Flat", same)
    yield _case("exl3", "flat", "signs", "weight", signs, {"every": 3}, "Flat", bound)
    yield _case("exl3", "flat", "few-signs", "weight", signs, {"every": 32}, "Flat", same)
    tall = {"trellis": shared()["exl3-flat-square"], "suh": half(128), "sv": draw(8), "bias": half(128)}
    yield _case("exl3", "flat", "mixed", "weight", tall, {"every": 32}, "Flat", same)
    endless = {**tall, "suh": np.where(np.arange(128) % 64, tall["suh"], np.float16(np.inf))}
    yield _case("exl3", "flat", "infinite", "weight", endless, {"every": 32}, "NotFinite", EXACT)
    without = lambda *names: {name: array for name, array in tall.items() if name not in names}
    for label, given in {
        "both": {**tall, **mark}, "trellis": without("trellis"), "suh": without("suh"), "sv": without("sv"),
        "rows": {**tall, "trellis": tall["trellis"][:7], "suh": tall["suh"][:112]},
        "columns": {**tall, "trellis": tall["trellis"][:, :4].copy(), "sv": tall["sv"][:4]},
        "more-rows": {**tall, "trellis": tall["trellis"][:7]},
        "short": {**tall, "suh": tall["suh"][:64]}, "float32": {**tall, "suh": tall["suh"].astype(np.float32)},
        "short-signs": {**tall, "sv": tall["sv"][:7]}, "uint16": {**tall, "sv": tall["sv"].view(np.uint16)},
        "long-signs": {**tall, "sv": np.zeros(128, np.int16)}, "half-signs": {**tall, "sv": np.zeros(8, np.float16)},
    }.items():  # fmt: skip
        yield _case("exl3", "checks", label, "weight", given, {"every": 32}, "Codes")


ENTRY = {
    "in_features": 11, "out_features": 5, "vector_lens": [3, 2], "num_centroids": [4, 8], "num_res_centroids": [-1, 4],
    "group_num": 2, "group_size": 4, "outlier_size": 3, "is_indice_packed": True, "bias": False,
}  # fmt: skip
PLAIN = {"vector_lens": [-1, 2], "num_centroids": [-1, 8], "outlier_size": 0, "in_features": 8}


def _vptq() -> Iterator[Case]:
    for label, change in {
        "packed": {}, "two-tensors": {"is_indice_packed": False}, "no-residual": {"num_res_centroids": [-1, -1]},
        "none": {"num_res_centroids": [-1, 0]}, "one-residual": {"num_res_centroids": [-1, 1]},
        "plain": PLAIN, "plain-two-tensors": {**PLAIN, "is_indice_packed": False, "num_res_centroids": [0, 0]},
        "more-residuals": {"num_res_centroids": [-1, 32], "num_centroids": [4, 2]},
        "no-powers": {"num_res_centroids": [-1, 5], "num_centroids": [3, 3]},
        "outliers-one-by-one": {"vector_lens": [1, 2], "in_features": 8},
        "outliers-without-book": {"num_centroids": [0, 8], "in_features": 8},
        "outliers-of-one": {"num_centroids": [1, 8]}, "pairs": {"vector_lens": [2, 1]},
        "long-rows": {"group_size": 13, "in_features": 29}, "one-book": {"group_num": 1, "in_features": 7},
        "short": {"group_num": 1, "group_size": 1, "in_features": 4, "out_features": 1},
    }.items():  # fmt: skip
        entry = {**ENTRY, **change}
        yield _case("vptq", "decode", label, "decode", _layer(entry), entry, "Codes")
    tensors = _layer(ENTRY)
    without = lambda *names: {name: array for name, array in tensors.items() if name not in names}
    for label, given in {
        "no-perm": without("perm"),
        "no-scale": without("weight_scale"),
        "no-bias": without("weight_bias"),
        "uint16-perm": {**tensors, "perm": tensors["perm"].astype(np.uint16)},
        "int64-perm": {**tensors, "perm": tensors["perm"].astype(np.int64)},
        "float32": {name: a.astype(np.float32) / 3 if a.dtype == np.float16 else a for name, a in tensors.items()},
    }.items():
        yield _case("vptq", "tensors", label, "decode", given, ENTRY, "Codes")
    entry = {name: value for name, value in ENTRY.items() if name != "outlier_size"} | {"in_features": 8}
    yield _case("vptq", "tensors", "no-outlier-size", "decode", _layer({**entry, "outlier_size": 0}), entry, "Codes")
    endless = {**tensors, "weight_scale": np.full(11, np.inf, np.float16), "weight_bias": np.full(11, 7e4, np.float32)}
    yield _case("vptq", "tensors", "infinite", "decode", endless, ENTRY, "NotFinite", EXACT)
    huge = {**tensors, "centroids.weight": np.full((2, 16), 3e38, np.float32)}
    huge["res_centroids.weight"] = np.full((2, 8), 3e38, np.float32)
    yield _case("vptq", "tensors", "overflow", "decode", huge, ENTRY, "NotFinite", EXACT)
    yield from _vptq_refused(tensors, without)


def _vptq_refused(tensors: dict[str, np.ndarray], without) -> Iterator[Case]:
    loose = {**ENTRY, "is_indice_packed": False}
    unpacked = _layer(loose)
    past = {name: unpacked[name].view(np.uint16).copy() for name in ("indices", "res_indices")}
    past["indices"][0, 0, 0], past["res_indices"][1, 0, 0] = 8, 4
    far = np.full((2, 3, 4), 40000, np.uint16).view(np.float16)
    odd = {**ENTRY, "num_centroids": [3, 8]}
    for label, given, entry in (
        *((f"no-{name}", without(name), ENTRY) for name in ("indices", "centroids.weight", "res_centroids.weight",
                                                            "outlier_indices", "outlier_centroids.weight")),
        *((f"shape-of-{name}", {**tensors, name: tensors[name][..., :-1].copy()}, ENTRY) for name in tensors),
        ("uint32-words", {**tensors, "indices": tensors["indices"].view(np.uint32)}, ENTRY),
        ("int64-indices", {**unpacked, "indices": unpacked["indices"].view(np.uint16).astype(np.int64)}, loose),
        ("uint16-indices", {**unpacked, "indices": unpacked["indices"].view(np.uint16)}, loose),
        ("past-the-book", {**unpacked, "indices": past["indices"]}, loose),
        ("past-the-residuals", {**unpacked, "res_indices": past["res_indices"]}, loose),
        ("far-past-the-book", {**unpacked, "indices": far}, loose),
        ("int8-perm", {**tensors, "perm": tensors["perm"].astype(np.int8)}, ENTRY),
        ("past-the-outliers", {**_layer(odd), "outlier_indices": np.full((1, 2, 3), 3, np.int16)}, odd),
        ("perm-twice", {**tensors, "perm": np.zeros(11, np.int16)}, ENTRY),
        ("perm-from-one", {**tensors, "perm": np.arange(1, 12, dtype=np.int16)}, ENTRY),
        *((f"settings-{name}-{value}", tensors, {**ENTRY, name: value}) for name, value in (
            ("in_features", 10), ("in_features", 0), ("out_features", 0), ("group_num", 0), ("group_size", 0),
            ("vector_lens", [3, 0]), ("num_centroids", [4, 1]), ("num_centroids", [4, 0]), ("outlier_size", 2))),
        *((f"without-{name}", tensors, {key: v for key, v in ENTRY.items() if key != name}) for name in
          ("group_num", "vector_lens", "outlier_size", "is_indice_packed")),
        ("one-centroid", {**tensors, "centroids.weight": tensors["centroids.weight"][:, :2].copy()},
         {**ENTRY, "num_centroids": [4, 1]}),
    ):  # fmt: skip
        label = label.replace(" ", "").replace("[", "").replace("]", "").replace(",", "-")
        yield _case("vptq", "checks", label, "decode", given, entry, "Codes")


def _layer(entry: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The tensors of a file whose settings are `entry`."""
    rng = np.random.default_rng(55)
    (v0, v), (n0, n), (_, residual) = (entry[name] for name in ("vector_lens", "num_centroids", "num_res_centroids"))
    ins, outs, size, books = (entry[name] for name in ("in_features", "out_features", "group_size", "group_num"))
    shape = (books, -(-outs // v), size)
    eighths = lambda *shape: (rng.integers(-32, 33, shape) / 8).astype(np.float16)
    k, r = rng.integers(0, n, shape), rng.integers(0, max(residual, 1), shape)
    k[0, 0, 0] = n - 1
    perm = rng.permutation(ins)
    found = {
        "centroids.weight": eighths(books, n * v),
        "perm": perm.astype(np.uint16).view(np.int16),
        "weight_scale": eighths(ins),
        "weight_bias": eighths(ins),
    }
    if residual > 0:
        found["res_centroids.weight"] = eighths(books, residual * v)
    if v0 > 1 and n0 > 0 and entry["outlier_size"]:
        count = entry["outlier_size"]
        found["outlier_centroids.weight"] = eighths(1, n0 * v0)
        found["outlier_indices"] = rng.integers(0, n0, (1, -(-outs // v0), count)).astype(np.int16)
    if entry["is_indice_packed"]:
        low, high = (n - 1).bit_length(), (residual - 1).bit_length() if residual > 0 else 0
        found["indices"] = _packed(k | (r << low if residual > 0 else 0), low + high)
    else:
        found["indices"] = k.astype(np.uint16).view(np.float16)
        if residual > 0:
            found["res_indices"] = r.astype(np.uint16).view(np.int16)
    return found


def _packed(numbers: np.ndarray, width: int) -> np.ndarray:
    """int32 words of numbers (books, vectors, columns), `width` bits each; each row begins with a new word."""
    rows = []
    for row in numbers.reshape(-1, numbers.shape[-1]).tolist():
        stream = sum(number << (width * j) for j, number in enumerate(row))
        rows.append([stream >> (32 * w) & 0xFFFFFFFF for w in range(-(-len(row) * width // 32))])
    return np.array(rows, np.uint32).view(np.int32).reshape(*numbers.shape[:2], -1)
