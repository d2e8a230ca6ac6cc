"""refquant on rotations, on collectives in few bits and on training through rounding. Imported by the adapter."""

from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported


class _Drawn:
    """A generator that draws the signs it was given: 0 stands for 1, and 1 for -1."""

    def __init__(self, *signs: np.ndarray):
        self._bits = [(1 - each.astype(np.int64)) // 2 for each in signs]

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        """The next ones. Raises ValueError unless `count` of 0 and 1 are asked for."""
        bits = self._bits.pop(0)
        if (low, high, count) != (0, 2, len(bits)):
            raise ValueError(f"drawn: low, high, count = {low}, {high}, {count}, expected 0, 2, {len(bits)}")
        return bits


def matrix(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Rows of a Hadamard matrix, all of them where none are named."""
    from refquant import hadamard

    H = hadamard.matrix(params["n"])
    return {"H": H[params["rows"]] if "rows" in params else H}


def transform(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x -> y = x Q^T."""
    from refquant import hadamard

    return {"y": hadamard.transform(inputs["x"])}


def orthogonal(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """signs? -> Q, float64, and the signs that were drawn, float32."""
    from refquant import hadamard

    if "signs" not in inputs:
        return {"Q": hadamard.orthogonal(params["n"])}
    drawn = hadamard.signs(params["n"], _Drawn(inputs["signs"]))
    return {"Q": hadamard.orthogonal(params["n"], _Drawn(inputs["signs"])), "drawn": drawn}


def turn(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Weights by name, Q, P? -> the rotated weights by name; or W -> values, for an input that H turns."""
    from types import SimpleNamespace

    from refquant import rotations

    if set(inputs) == {"W"}:
        return {"values": rotations.ffn_down_online(inputs["W"])}
    weights = {name: array for name, array in inputs.items() if name not in ("Q", "P")}
    config = SimpleNamespace(**{"mixture": None, **params})
    return rotations.rotate_model(weights, config, inputs["Q"], inputs.get("P"))


def step(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """R, gradient -> R after a step of Cayley's."""
    from refquant import rotations

    return {"R": rotations.cayley_step(inputs["R"], inputs["gradient"], params["lr"])}


def incoherent(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, left, right -> values, turned by both, and the signs that were drawn."""
    from refquant import rotations

    values, left, right = rotations.incoherent(inputs["W"], _Drawn(inputs["left"], inputs["right"]))
    return {"values": values, "left": left, "right": right}


def coherent(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W, left, right -> values, turned back."""
    from refquant import rotations

    return {"values": rotations.coherent(inputs["W"], inputs["left"], inputs["right"])}


def incoherence(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """W -> mu."""
    from refquant import rotations

    return {"mu": np.asarray(rotations.incoherence(inputs["W"]))}


def all_gather(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """rank0, rank1 ... -> values, and the bytes that a rank sends to another."""
    from refquant import zero_plus_plus

    values, sent = zero_plus_plus.all_gather(_ranks(inputs), **params)
    return {"values": values, "bytes": np.asarray(sent, np.int64)}


def reduce_scatter(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """rank0, rank1 ... -> values, a row for each rank, and the bytes within and between nodes."""
    from refquant import zero_plus_plus

    traffic = zero_plus_plus.Traffic()
    values = np.stack(zero_plus_plus.reduce_scatter(_ranks(inputs), traffic=traffic, **params))
    within, between = np.asarray(traffic.within_nodes, np.int64), np.asarray(traffic.between_nodes, np.int64)
    return {"values": values, "within_nodes": within, "between_nodes": between}


def _ranks(inputs: Arrays) -> list[np.ndarray]:
    return [inputs[f"rank{i}"] for i in range(len(inputs))]


def forward(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x and parameters -> values."""
    return {"values": _training(member, "")(**inputs, **params)}


def backward(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """dy, x and parameters -> dx, and the gradients of the parameters that are learned, in their order."""
    found = _training(member, "_backward")(**inputs, **params)
    names = ("dx", "dalpha") if member == "pact" else ("dx", "dscale", "doffset")
    return dict(zip(names, map(np.asarray, found if isinstance(found, tuple) else (found,))))


def first_scale(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x -> the scale that training begins with."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    return {"scale": _training(member, "_scale")(inputs["x"], **settings)}


def gradient_scale(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """What gradients of a scale are multiplied by."""
    return {"value": np.asarray(_training(member, "_gradient_scale")(**params))}


def _training(member: str, suffix: str):
    from refquant import fake_quant

    if not hasattr(fake_quant, f"{member}{suffix}"):
        raise Unsupported(f"training.{member}{suffix}")
    return getattr(fake_quant, f"{member}{suffix}")
