"""Our own engine: products of packed matrices by compiled kernels, the sampler, logits of whole models.

Only the kernel that a test asks for is compiled, and kept below REFQUANT_CACHE. Activations are rounded as the engine
does it, by the NumPy twins of its kernels.
"""

import importlib.util
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from conformance import vectors
from conformance.adapters._package import installed, refusals
from conformance.protocol import Arrays, Unsupported
from refquant.errors import QuantError

NAME = "runtime (Numba)"


def version() -> str:
    """Of Numba, which compiles it."""
    return f"of this tree, numba {installed('numba')}"


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """product, sampler, model."""
    family, _, member = algorithm.partition(".")
    if (family, op) not in OPERATIONS:
        raise Unsupported(f"{algorithm} {op}")
    version()
    if importlib.util.find_spec("runtime") is None:
        raise Unsupported("the runtime is not part of this installation")
    with refusals(QuantError):
        return OPERATIONS[family, op](member, params, inputs)


@lru_cache(maxsize=1)
def _crew():
    from runtime.workers import Crew

    return Crew(1)


def _product(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from runtime.kernels import PRODUCTS, activations, bf16, gemm, gemm_super
    from runtime.packing import pack
    from runtime.program import Program
    from runtime.weights import padded

    if member not in PRODUCTS:
        raise Unsupported(f"product.{member}: the engine decodes it at load")
    product, (rows, _), x = PRODUCTS[member], inputs["bytes"].shape, np.ascontiguousarray(inputs["x"][None])
    n, stride = x.size, padded(rows)
    if n % 32:
        raise Unsupported(f"product.{member}: n = {n}, which the engine refuses when a model is loaded")
    packed, y = pack(inputs["bytes"].copy(), member, _crew()), np.zeros((1, stride), np.float32)
    if product.form in (activations.Q8_0, activations.Q8_K):
        encode = activations.q8_0_numpy if product.form == activations.Q8_0 else activations.q8_k_numpy
        codes, e, sums, halves = encode(x)
        codes = activations.raised_numpy(codes) if product.matvec in gemm_super.RAISED else codes
        shared = product.matvec is product.matmul  # the only kernels of one token that unpack by a function
        panels = np.zeros(gemm.PANEL, np.uint8)
        buffers = [packed, codes, e, halves if product.halves else sums, y, panels, product.tables]
        numbers = [n, stride * 4, product.unpack if shared else 0, product.bias, 0]
    else:
        given = bf16.encode_numpy(x) if product.form == activations.BF16 else x
        buffers, numbers = [packed, given, None, None, y, None], [n, stride * 4, 0, 0, n * given.itemsize]
    program = Program()
    program.add(product.matvec, buffers, numbers, fixed=stride // 32)
    _crew().run(program.table(), 0, 1, 1, 0)
    return {"y": y[0, :rows]}


def _sampler(params: Mapping[str, object]):
    from runtime.sampling import Sampler

    return Sampler(**params, repeat_last_n=-1, seed=0)


def _candidates(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    ids, probabilities = _sampler(params).candidates(inputs["logits"], inputs["history"].tolist())
    order = np.argsort(ids)
    return {"ids": ids[order].astype(np.int64), "probabilities": probabilities[order].astype(np.float32)}


class Given:
    """A generator that draws the one number of a test."""

    def __init__(self, number: float):
        self.number = number

    def random(self) -> float:
        """The number."""
        return self.number


def _draw(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    from runtime.sampling import draw

    ids, probabilities = _sampler(params).candidates(inputs["logits"], inputs["history"].tolist())
    return {"id": np.int64(draw(ids, probabilities, Given(float(inputs["uniform"]))))}


@lru_cache(maxsize=1)
def _model(file: str):
    from runtime.model import Model

    return Model.load(vectors.ROOT / file, threads=1, n_ctx=64, kv_dtype="f32")


def _logits(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    scores = _model(params["model"]).logits(inputs["ids"].tolist())
    return {"logits": np.array(scores[:, :: params["every"]], np.float32)}


OPERATIONS = {
    ("product", "matvec"): _product,
    ("sampler", "candidates"): _candidates,
    ("sampler", "draw"): _draw,
    ("model", "logits"): _logits,
}
