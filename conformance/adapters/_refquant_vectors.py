"""refquant on codes of vectors and trellises, and on caches of keys and values. Imported by the adapter."""

from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported


def decode(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The tensors of a layer -> values; `every`: of each so many rows and columns."""
    from refquant import aqlm, exl3, quip_sharp, trellis, vptq

    settings, given = dict(params), dict(inputs)
    every = settings.pop("every", 1)
    if member == "aqlm":
        values = aqlm.decode(**given)
    elif member == "e8p":
        values = quip_sharp.decode(**given)
    elif member == "qtip":
        values = trellis.decode(**given, **{**settings, "shape": tuple(settings["shape"])})
    elif member == "exl3":
        values = exl3.decode(given)
    elif member == "vptq":
        values = vptq.decode(vptq.Settings.from_config(settings), given)
    else:
        raise Unsupported(f"vector.{member}")
    return {"values": values[..., ::every, ::every] if every > 1 else values}


def tiles(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """A trellis -> values (in, out), before transforms and scales."""
    from refquant import exl3

    _only("exl3", member)
    return {"values": exl3.decode_tiles(inputs["trellis"], **params)}


def unpack(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Words of a file -> codes."""
    from refquant import quip_sharp

    _only("e8p", member)
    return {"codes": quip_sharp.unpack(inputs["packed"])}


def states(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Words of streams -> states."""
    from refquant import trellis

    _only("qtip", member)
    return {"states": trellis.states(inputs["words"], params["step"])}


def _only(known: str, member: str) -> None:
    if member != known:
        raise Unsupported(f"vector.{member}")


def keep(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """k0, v0, k1, v1 ... -> all keys and values, decoded, and what `size` gives."""
    cache = _filled(member, params, inputs)
    return {"keys": cache.keys(), "values": cache.values(), **_sizes(cache)}


def size(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """k0, v0, k1, v1 ... -> bytes that are stored, and tokens."""
    return _sizes(_filled(member, params, inputs))


def _sizes(cache) -> dict[str, np.ndarray]:
    return {"bytes": np.asarray(cache.nbytes, np.int64), "tokens": np.asarray(len(cache), np.int64)}


def _filled(member: str, params: Mapping[str, object], inputs: Arrays):
    """The cache after all calls of append."""
    from refquant import kivi, kv_cache, kvquant

    settings, given = dict(params), dict(inputs)
    calls = [(given[f"k{i}"], given[f"v{i}"]) for i in range(len(given)) if f"k{i}" in given]
    if member == "kivi":
        cache = kivi.KIVI(**settings)
    elif member == "token":
        cache = kv_cache.TokenCache(**settings)
    elif member == "kvquant":
        keys = kvquant.Table(given["key_levels"], given.get("key_lower"), given.get("key_upper"), 0.0)
        values = kvquant.Table(given["value_levels"], None, None, settings.pop("outliers", 0.0))
        cache = kvquant.KVQuant(keys, values, **settings)
    else:
        raise Unsupported(f"cache.{member}")
    for k, v in calls:
        cache.append(k, v)
    return cache


def fit(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x, weights? of keys or of values -> levels, and for keys lower and upper."""
    from refquant import kvquant

    if member != "kvquant":
        raise Unsupported(f"cache.{member}")
    settings = dict(params)
    maker = {"keys": kvquant.fit_keys, "values": kvquant.fit_values}[settings.pop("of")]
    table = maker(inputs["x"], weights=inputs.get("weights"), **settings)
    found = {"levels": table.levels, "lower": table.lower, "upper": table.upper, "bits": np.asarray(table.bits)}
    return {name: array for name, array in found.items() if array is not None}
