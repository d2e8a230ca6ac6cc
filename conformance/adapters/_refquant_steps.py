"""refquant's steps of calibrated methods: one function of a module at a time. Imported by the adapter."""

import dataclasses
import importlib
from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported

MODULES = [
    "adaround",
    "autoround",
    "awq",
    "compensated",
    "easyquant",
    "factor",
    "gptq",
    "grid",
    "hessian",
    "layer_inputs",
    "ldlq",
    "llm_int8",
    "low_rank",
    "smoothquant",
    "sparse_split",
    "sparsity",
    "wanda",
    "weighted_rounding",
    "zeroquant",
]


def call(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The function that params["function"] names, with arrays and settings by the names of its parameters."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    function, given = settings.pop("function"), dict(inputs)
    special = SPECIAL.get((member, function))
    if special is not None:
        return _flat(special(settings, given))
    if member not in MODULES:
        raise Unsupported(f"step.{member}")
    if "layers0" in given:
        given["layers"] = [given.pop(f"layers{i}") for i in range(len(given)) if f"layers{i}" in given]
    return _flat(getattr(importlib.import_module(f"refquant.{member}"), function)(**given, **settings))


def _flat(found: object) -> dict[str, np.ndarray]:
    """result0, result1 ...: what a function gave; parts of tuples, records, mappings (by name) one by one."""
    if dataclasses.is_dataclass(found):
        found = [getattr(found, each.name) for each in dataclasses.fields(found)]
    if isinstance(found, dict):
        found = [found[name] for name in sorted(found)]
    parts = [each for each in (found if isinstance(found, tuple | list) else [found]) if each is not None]
    return {f"result{i}": np.asarray(part) for i, part in enumerate(parts)}


def _accumulate(settings: dict, given: dict):
    """H of batches; those from `merge` on are seen by another, whose settings may be `other`."""
    from refquant.hessian import Hessian

    merge, other = settings.pop("merge", len(given)), settings.pop("other", {})
    first, second = Hessian(**settings), Hessian(**{**settings, **other})
    for i in range(len(given)):
        (first if i < merge else second).update(given[f"batch{i}"])
    if merge < len(given) or other:
        first.merge(second)
    return first.matrix, first.count


def _norms(settings: dict, given: dict):
    """Norms of the inputs of wanda from batches, or from a Hessian that saw them."""
    from refquant import wanda
    from refquant.hessian import Hessian

    batches = [given[f"batch{i}"] for i in range(len(given))]
    if not settings.get("hessian"):
        return wanda.input_norms(batches if settings.get("list") else batches[0] if batches else None)
    seen = Hessian(exact=True)
    for batch in batches:
        seen.update(batch)
    return wanda.input_norms(seen)


def _tokens(settings: dict, given: dict):
    """Batches as one matrix."""
    from refquant.hessian import Hessian
    from refquant.layer_inputs import tokens

    batches = [given[f"batch{i}"] for i in range(len(given))]
    calibration = {"list": batches, "none": None, "hessian": Hessian()}
    return tokens("step", calibration.get(settings["as"], batches[0] if batches else None), settings["width"])


def _adam(settings: dict, given: dict):
    """p after a step against each of the gradients g0, g1 ..."""
    from refquant.adam import Adam

    optimizer, p = Adam(**settings), given.pop("p")
    for i in range(len(given)):
        p = optimizer.step(p, given[f"g{i}"])
    return p


def _subtract(settings: dict, given: dict):
    from refquant.factor import subtract_product

    C = given["C"].copy()
    subtract_product(C, given["A"], given["B"], **settings)
    return C


def _damped_factor(settings: dict, given: dict):
    from refquant import gptq

    return gptq.damped_factor(given["H"], gptq.Settings(**settings))


def _sweep(settings: dict, given: dict):
    """Codes of GPTQ in natural order, and what they cost."""
    from refquant import factor, gptq
    from refquant.column_grids import ColumnGrids
    from refquant.schemes import parse

    W, H = given["W"], given["H"].astype(np.float64)
    grids = ColumnGrids(W, parse(settings["scheme"]), np.arange(len(H)), static=True, dtype=np.float64)
    columns = np.ascontiguousarray(W.T, np.float64)
    return gptq.sweep(columns, factor.inverse_factor(H, True), grids, [0, len(H)], True)


def _every(function: str):
    """Factors, of which every so many rows and columns are shown."""

    def factors(settings: dict, given: dict):
        from refquant import factor

        every = settings.pop("every", 1)
        found = getattr(factor, function)(given["H"], **settings)
        return [U[::every, ::every] for U in (found if isinstance(found, tuple) else (found,))]

    return factors


def _fit(settings: dict, given: dict):
    """A grid for rows, and codes and values of w (groups, n) by it; or of a range lo..hi."""
    from refquant import grid
    from refquant.schemes import parse

    rule, w = parse(settings["scheme"]).rule, given.pop("w")
    if "lo" in given:
        found = grid.from_range(given["lo"], given["hi"], rule)
    else:
        found = grid.fit(given["rows"], rule, given.get("tensor"))
    shown = [found.scale, found.zero_point, found.stored]
    wide = dataclasses.replace(found.astype(w.dtype.type), stored=None)
    column = lambda a: a if np.ndim(a) == 0 else np.reshape(a, (-1, 1))
    wide = dataclasses.replace(wide, scale=column(wide.scale), zero_point=column(wide.zero_point))
    codes = wide.codes(w.copy())
    return [*shown, codes, wide.values(codes)]


def _rounded(settings: dict, given: dict):
    """autoround: codes, scale, zero, inside and slopes of v, a, b; with to_weight the gradients as well."""
    from refquant import autoround
    from refquant.linear_rows import rows_of

    rows = rows_of("step", given["W"], settings["scheme"])
    now = autoround.qdq(rows, given["v"], given["a"], given["b"])
    found = [getattr(now, each.name) for each in dataclasses.fields(now)]
    if "to_weight" in given:
        found += autoround.gradients(rows, now, given["to_weight"], given["a"])
    return found


def _search(settings: dict, given: dict):
    """awq: scale, ratio and losses of layers that share an input; or s of one point, or shares of the weights."""
    from refquant import awq
    from refquant.schemes import parse

    layers = [given.pop(f"layers{i}") for i in range(len(given)) if f"layers{i}" in given]
    if "epsilon" in settings:
        return awq.weight_mean(layers, parse(settings["scheme"]), settings["epsilon"])
    if "ratio" in settings:
        return awq.channel_scale(**given, **{**settings, "search": awq.DIALECTS[settings["search"]]})
    return awq.search_scale(layers, given["X"], **settings)


def _outlier_scale(settings: dict, given: dict):
    """s, and what was tried: t and losses."""
    from refquant import smoothquant

    seen: list[tuple[float, float]] = []
    s = smoothquant.outlier_scale(**given, **settings, seen=lambda *pair: seen.append(pair))
    return s, np.array(seen).reshape(-1, 2)[:, 0], np.array(seen).reshape(-1, 2)[:, 1]


def _corrected(settings: dict, given: dict):
    """Codes of int4-g4 with corrections -> values, and bytes in all."""
    from refquant.compensated import compensate
    from refquant.schemes import parse
    from refquant.tensor import QuantizedTensor

    scheme, codes = parse(settings["scheme"]), given.pop("codes")
    plain = QuantizedTensor(codes, given.pop("scale"), given.pop("zero_point"), scheme, codes.shape, {})
    found = compensate(plain, **given)
    return found.dequantize(), found.nbytes


def _product(settings: dict, given: dict):
    """The matrix whose factors are up and down, and their types."""
    from refquant.low_rank import truncated

    up, down = truncated(given["M"], settings["rank"], given["a"])
    return up @ down, np.array([up.dtype.itemsize, down.dtype.itemsize]), np.square(up).sum(axis=0)


def _int8(settings: dict, given: dict):
    """llm_int8: values and bytes of rows; with x the product, with the wide matrix for outliers where it is given."""
    from refquant import llm_int8

    dialect = settings.pop("dialect", "")
    rule = llm_int8.DIALECTS[dialect] if dialect else llm_int8.RULE
    rows = llm_int8.encode(given["W"], rule=rule)
    if "x" in given:
        return llm_int8.matmul(given["x"], rows, given.get("wide"), rule=rule, **settings)
    return rows.dequantize(), rows.nbytes, rows.codes, rows.absmax


def _shifts(settings: dict, given: dict):
    """What the search of weighted rounding tries, in one array."""
    from refquant.weighted_rounding import shifts_of

    return np.array(shifts_of(**settings))


def _scores(settings: dict, given: dict):
    from refquant import sparse_split
    from refquant.schemes import parse

    return sparse_split.scores(given["W"], parse(settings["scheme"]), given.get("X"), settings["score"])


SPECIAL = {
    ("hessian", "Hessian"): _accumulate,
    ("wanda", "input_norms"): _norms,
    ("layer_inputs", "tokens"): _tokens,
    ("adam", "step"): _adam,
    ("factor", "subtract_product"): _subtract,
    **{("factor", name): _every(name) for name in ("factors", "upper_factor", "inverse_factor")},
    ("gptq", "damped_factor"): _damped_factor,
    ("gptq", "sweep"): _sweep,
    ("grid", "fit"): _fit,
    ("autoround", "qdq"): _rounded,
    ("awq", "search_scale"): _search,
    ("smoothquant", "outlier_scale"): _outlier_scale,
    ("compensated", "dequantize"): _corrected,
    ("low_rank", "truncated"): _product,
    ("llm_int8", "matmul"): _int8,
    ("sparse_split", "scores"): _scores,
    ("weighted_rounding", "shifts_of"): _shifts,
}
