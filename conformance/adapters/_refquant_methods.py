"""refquant on data: observers, calibrated methods, products of blocks. Imported by the adapter of that name."""

from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported


def observe(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """batch0, batch1, ... -> lo, hi, and scale and zero_point of the scheme; from batch `merge` on seen by another."""
    settings = dict(params)
    merge, other = settings.pop("merge", None), settings.pop("other", {})
    observer, scheme = _observer(member, settings)
    for i in range(len(inputs) if merge is None else merge):
        observer.update(inputs[f"batch{i}"])
    if merge is not None:
        second, _ = _observer(member, {**settings, **other})
        for i in range(merge, len(inputs)):
            second.update(inputs[f"batch{i}"])
        observer.merge(second)
    (lo, hi), (scale, zero) = observer.ranges(), observer.affine(scheme)
    found = {"lo": lo, "hi": hi, "scale": scale, "zero_point": zero}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def _observer(member: str, settings: Mapping[str, object]):
    """The observer of this name and settings, and the scheme."""
    from refquant import observers
    from refquant.schemes import parse

    settings, (name, _, dialect) = dict(settings), member.partition("@")
    scheme = parse(settings.pop("scheme"))
    if name == "min-max":
        return observers.MinMax(scheme.granularity), scheme
    if name == "moving-average":
        return observers.MovingAverage(scheme.granularity, **settings), scheme
    if name == "mean-squared-error":
        return observers.MeanSquaredError(scheme, scheme.granularity, **settings), scheme
    if name == "percentile":
        return observers.Percentile(**settings, dialect=dialect), scheme
    if name == "entropy":
        return observers.Entropy(**settings, dialect=dialect), scheme
    if name == "histogram":
        return observers.Histogram(**settings), scheme
    raise Unsupported(f"observer.{member}")


def quantize(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, X -> codes, scale, zero_point, and g_idx where columns were visited in another order."""
    q = _quantized(member, params, inputs)
    found = {"codes": q.codes, "scale": q.scale, "zero_point": q.zero_point, **q.extras}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def weight(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, X -> what the same call decodes to, corrections included."""
    return {"values": _quantized(member, params, inputs).dequantize()}


def _quantized(member: str, params: Mapping[str, object], inputs: Arrays):
    import refquant
    from refquant.hqq import Settings

    options = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    if "settings" in options:
        options["settings"] = Settings(**options["settings"])
    options |= {name: array for name, array in inputs.items() if name not in ("W", "X")}
    return refquant.quantize(inputs["W"], method=member, calibration=inputs.get("X"), **options)


def transform(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """One of the functions beside a method: its arrays by the names of its parameters -> result0, result1 ..."""
    from refquant import awq, smoothquant

    module, function = {"awq": awq, "smoothquant": smoothquant}[member], params["function"]
    given = dict(inputs)
    if function == "migrate_gain":
        given["layers"] = [given["layers"]]
    found = getattr(module, function)(**given)
    found = found if isinstance(found, tuple) else (found,)
    flat = [array for each in found for array in (each if isinstance(each, list) else [each])]
    return {f"result{i}": array for i, array in enumerate(flat) if array is not None}


def prune(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, and X or H -> values: zeros where a weight went, and what the others became."""
    from refquant import magnitude, obd, obs, sparsegpt, wanda

    settings = dict(params)
    if "pattern" in settings:
        settings["pattern"] = tuple(settings["pattern"])
    modules = {"sparsegpt": sparsegpt, "wanda": wanda, "magnitude": magnitude, "obd": obd, "obs": obs}
    given = [inputs[name] for name in ("W", "X", "H") if name in inputs and (name, member) != ("X", "magnitude")]
    return {"values": modules[member].prune(*given, **settings)}


def saliency(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, and H or its inverse -> values: the loss that removing each weight alone would cause."""
    from refquant import obd, obs

    modules = {"obd": obd, "obs": obs}
    if member not in modules:
        raise Unsupported(f"method.{member} saliency")
    return {"values": modules[member].saliency(*(inputs[name] for name in ("W", "H", "H_inverse") if name in inputs))}


def channel_scale(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, X -> channel_scale, what the columns of W are multiplied by."""
    from refquant import awq, smoothquant

    name, _, dialect = member.partition("@")
    if name == "smoothquant":
        return {"channel_scale": smoothquant.smooth_scale([inputs["W"]], inputs["X"], **params, dialect=dialect)}
    return {"channel_scale": awq.search_scale([inputs["W"]], inputs["X"], params["scheme"], dialect).scale}


def encode_rows(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x -> codes, scale (the absmax of each row), outliers."""
    from refquant import llm_int8

    rows = llm_int8.encode(inputs["x"], params["threshold"], _int8_rule(member))
    return {"codes": rows.codes, "scale": rows.absmax, "outliers": rows.outliers}


def multiply_rows(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x, W -> values = x W^T with W in int8 by rows; outlier columns of W as they were, in dialects decoded."""
    from refquant import llm_int8

    rule = _int8_rule(member)
    W = inputs["W"]
    wide = W if "@" not in member else None
    return {"values": llm_int8.matmul(inputs["x"], llm_int8.encode(W, rule=rule), wide, params["threshold"], rule)}


def _int8_rule(member: str):
    from refquant import llm_int8

    return llm_int8.DIALECTS[member.partition("@")[2]] if "@" in member else llm_int8.RULE


def multiply_blocks(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """bytes, x -> y: the float64 product of what the blocks decode to, rounded once."""
    from refquant import gguf
    from refquant.errors import ShapeError

    x = inputs["x"]
    scalar = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(member)
    data = inputs["bytes"] if scalar is None else inputs["bytes"].view(scalar)
    W = gguf.dequantize(data, member)
    if W.shape[1:] != x.shape:
        raise ShapeError(f"product: x.shape = {x.shape}, expected {W.shape[1:]}, the columns of the matrix")
    return {"y": (W.astype(np.float64) @ x.astype(np.float64)).astype(np.float32)}


def table(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x, weights? -> levels, ascending float32; of a dynamic map without inputs."""
    from refquant import dynamic_map, kmeans

    makers = {"kmeans-lloyd": kmeans.lloyd, "kmeans-optimal": kmeans.optimal, "dynamic_map": dynamic_map.levels}
    if member not in makers:
        raise Unsupported(f"levels.{member}")
    return {"levels": makers[member](**inputs, **params)}
