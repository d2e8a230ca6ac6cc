"""layer_solvers as a witness of methods on small layers; formats come from naive_spelling and naive_linear."""

import re

import layer_solvers as solvers
import naive_linear
import naive_spelling
import numpy as np
import variant_witness

from conformance.protocol import Unsupported

f32 = np.float32


class Layer:
    """W under a linear format: which columns share a scale in each row, and plain rounding."""

    def __init__(self, params, inputs):
        self.W = inputs["W"]
        self.X = inputs["X"].reshape(-1, inputs["X"].shape[-1]) if "X" in inputs else None
        self.scheme, self.name = naive_spelling.parse(params["scheme"]), params["scheme"]
        ins = self.W.shape[1]
        if not np.isfinite(self.W).all() or (self.X is not None and self.X.shape[1] != ins):
            raise Unsupported("refusals")
        self.scales, places = naive_spelling.members(self.W.shape, self.scheme.grain)
        self.groups = [([p // ins for p in part], [p % ins for p in part]) for part in places]
        self.rows = [(rows[0], columns) for rows, columns in self.groups]
        self.within = all(len(set(rows)) == 1 for rows, _ in self.groups)
        self.columns = [columns for row, columns in self.rows if row == 0] if self.within else [list(range(ins))]
        head, fields = self.scheme.head, self.scheme.fields
        if not re.fullmatch(r"u?int\d", head):
            raise Unsupported(f"{self.name}: linear formats only")
        self.bits, self.signed = int(head[-1]), head[0] == "i"
        own = naive_linear.dialect(self.scheme.dialect, self.bits, self.signed)
        symmetric = {"bits": self.bits, "signed": self.signed, "symmetric": head[0] == "i"}
        self.settings = symmetric | own | fields
        self.low = -(2 ** (self.bits - 1)) if self.signed else 0
        self.high = self.low + 2**self.bits - 1
        self.low += self.settings.get("range_mode") == "restricted"

    def encoded(self, W):
        """codes, scale, zero_point of plain rounding."""
        return variant_witness.Array(self.scheme, W.shape, f32(W)).encoded({})

    def nearest(self, W):
        """Values after plain rounding, float32."""
        array = variant_witness.Array(self.scheme, W.shape, f32(W))
        found = array.encoded({})
        return variant_witness.Array(self.scheme, W.shape, found["codes"]).decoded(found)

    def scale_of(self, row):
        """The scale of one group."""
        return naive_linear.Group([float(v) for v in row], self.settings).encoded()[1]

    def spread(self, values):
        """One of each group to (out, in)."""
        flat = np.broadcast_to(np.asarray(values, np.float64).reshape(-1), len(self.groups))
        out = np.zeros(self.W.shape)
        for value, (rows, columns) in zip(flat, self.groups):
            out[rows, columns] = value
        return out

    def stored(self, codes, scale, zero):
        """The three outputs."""
        dtype = np.int8 if self.signed else np.uint8
        kind = dtype if self.settings.get("zero_kind", "int") == "int" else f32
        return {
            "codes": np.asarray(codes).astype(dtype),
            "scale": np.asarray(scale, f32).reshape(self.scales),
            "zero_point": np.asarray(zero).astype(kind).reshape(() if self.settings["symmetric"] else self.scales),
        }

    def grids(self):
        """rounded(j, W): values of column j, by scales of the original weights found when a group begins; and codes."""
        codes, found = np.zeros(self.W.shape, np.int64), {}

        def rounded(j, values, now):
            group = next(g for g, columns in enumerate(self.columns) if j in columns)
            for row in range(len(values)):
                if (row, group) not in found:
                    members = [float(v) for v in f32(now[row, self.columns[group]])]
                    found[row, group] = naive_linear.Group(members, self.settings).encoded()[1:]
                s, z = found[row, group]
                q = np.rint(values[row] / s) + z if s else z
                codes[row, j] = min(max(q, self.low), self.high)
            s, z = (np.array([found[row, group][i] for row in range(len(values))], np.float64) for i in (0, 1))
            return s * (codes[:, j] - z)

        def result():
            every = [found[row, g] for row in range(len(self.W)) for g in range(len(self.columns))]
            zero = 0 if self.settings["symmetric"] else [z for _, z in every]
            return self.stored(codes, [s for s, _ in every], zero)

        return rounded, result


def run(member, op, params, inputs):
    """quantize, weight and transform."""
    if op == "transform":
        return {f"result{i}": a for i, a in enumerate(transformed(params["function"], inputs)) if a is not None}
    name, _, dialect = member.partition("@")
    options = {key: value for key, value in params.items() if key not in ("scheme", "precision")}
    if dialect:
        options["dialect"] = dialect
    layer = Layer(params, inputs)
    found = METHODS[name](layer, inputs, **options)
    return found if isinstance(found, dict) else {"values": f32(found)}


def awq(layer, arrays, dialect="", clip=None):
    """Values."""
    if not layer.within and layer.scheme.grain != "tensor":
        raise Unsupported("groups across rows")
    columns = layer.columns
    if layer.scheme.grain.startswith("channel1"):
        raise Unsupported("refusals")
    return solvers.awq(layer.W, layer.X, layer.nearest, columns, dialect, clip)


def smoothquant(layer, arrays, alpha=0.5, dialect=""):
    """Values."""
    s = solvers.smoothed(layer.W, layer.X, alpha, dialect)
    return layer.nearest(layer.W * s) / s


def weighted(layer, arrays, dialect=""):
    """codes, scale."""
    if layer.settings.get("range_mode") != "signedmax":
        raise Unsupported("refusals")
    q = np.ones(layer.W.shape[1], f32) if layer.X is None else f32(np.mean(np.float64(layer.X) ** 2, axis=0))
    half = 2 ** (layer.bits - 1)
    dtype = layer.settings.get("scale_dtype", "float32")
    shifts, refit = solvers.shifts(dialect, layer.bits), not dialect
    scales = [
        solvers.weighted_scale(layer.W[row, columns], q[columns], half, shifts, refit) for row, columns in layer.rows
    ]
    if dialect:
        scales = [min(s, f32(-1e-5)) if s < 0 else max(s, f32(1e-5)) for s in scales]
    scales = [f32(naive_linear.narrow(float(s), dtype)) for s in scales]
    codes = np.zeros(layer.W.shape, np.int64)
    for s, (row, columns) in zip(scales, layer.rows):
        codes[row, columns] = np.clip(np.rint(layer.W[row, columns] / s), -half, half - 1) if s else 0
    return layer.stored(codes, scales, 0)


def easyquant(layer, arrays, deviations=3.0, steps=100, lr=0.01):
    """Values."""
    dtype = layer.settings.get("scale_dtype", "float32")
    stored = lambda s: f32(naive_linear.narrow(float(s), dtype))
    return solvers.easyquant(layer.W, layer.rows, layer.scale_of, layer.low, layer.high, deviations, steps, lr, stored)


def zeroquant(layer, arrays, inputs="int8-token-restricted", steps=100, lr=1e-3):
    """Values."""
    rounded = lambda X: X
    if inputs is not None:
        rounded = Layer({"scheme": inputs}, {"W": f32(layer.X)}).nearest
    return solvers.zeroquant(layer.W, layer.X, layer.nearest, rounded, steps, lr)


def low_rank(layer, arrays, rank=16, sweeps=0, dialect=""):
    """Values."""
    if dialect:
        return solvers.lqer(layer.W, layer.X if dialect == "l2qer" else None, layer.nearest, rank, sweeps)
    return solvers.low_rank(layer.W, layer.nearest, rank, sweeps)


def hqq(layer, arrays, dialect="", round_zero=False, settings=None):
    """codes, scale, zero_point."""
    if layer.settings.get("zero_kind") != "float" or layer.settings.get("zero_added") != "before":
        raise Unsupported("refusals")
    parts = np.array([layer.W[row, columns] for row, columns in layer.rows], f32)
    codes, scale, zero = solvers.hqq(parts, layer.high, dialect, round_zero, settings)
    made = np.zeros(layer.W.shape, np.int64)
    for line, (row, columns) in zip(codes, layer.rows):
        made[row, columns] = line
    return layer.stored(made, scale, zero)


def gptaq(layer, arrays, carried="weights"):
    """codes, scale, zero_point; one block, in which `carried` says nothing."""
    rounded, result = layer.grids()
    solvers.gptaq(layer.W, layer.X, arrays["native"], lambda j, W: rounded(j, W[:, j], W))
    return result()


def sparsegpt(layer, arrays, sparsity=0.5, pattern=None, block=128):
    """codes, scale, zero_point; scales are those of the original weights."""
    _, dead = solvers.hessian(layer.X)
    original = np.where(dead, f32(0), layer.W)
    rounded, result = layer.grids()
    solvers.sparsegpt(layer.W, layer.X, lambda j, column: rounded(j, column, original), sparsity, pattern, block)
    return result()


def pruned(layer, arrays, sparsity=0.5, pattern=None):
    """Wanda, and magnitude where there are no inputs to weigh."""
    norms = 1 if layer.X is None else np.sqrt(np.mean(np.float64(layer.X) ** 2, axis=0))
    scores, W = np.abs(np.float64(layer.W)) * norms, layer.W.copy()
    n, m = pattern or (int(W.shape[1] * sparsity), W.shape[1])
    for row in range(len(W)):
        for start in range(0, W.shape[1], m):
            order = sorted(range(start, start + m), key=lambda j: (scores[row, j], j))
            W[row, order[:n]] = 0
    return layer.encoded(W)


def magnitude(layer, arrays, sparsity=0.5, pattern=None, scope="row"):
    """codes, scale, zero_point."""
    layer.X = None
    if scope == "layer" and pattern is None:
        W = layer.W.copy()
        order = sorted(range(W.size), key=lambda place: (abs(W.reshape(-1)[place]), place))
        W.reshape(-1)[order[: int(W.size * sparsity)]] = 0
        return layer.encoded(W)
    return pruned(layer, arrays, sparsity, pattern)


def sparse(layer, arrays, share=0.01, score="error", value_dtype="float32"):
    """What is rounded, and what is not by rows."""
    kept = solvers.kept(layer.W, layer.X, layer.nearest, share, score)
    start = [0, *np.cumsum(kept.sum(axis=1)).tolist()]
    found = layer.encoded(np.where(kept, f32(0), layer.W))
    found |= {"sparse_start": np.array(start, np.int32), "sparse_columns": np.array(np.nonzero(kept)[1], np.int32)}
    found["sparse_values"] = layer.W[kept].astype(value_dtype)
    dense = layer.nearest(np.where(kept, f32(0), layer.W))
    return found | {"values": np.where(kept, layer.W.astype(value_dtype).astype(np.float32), dense)}


def adaround(layer, arrays, steps=1000, lr=0.01, strength=10.0):
    """Values."""
    found = layer.encoded(layer.W)
    scale, zero = layer.spread(found["scale"]), layer.spread(found["zero_point"])
    return solvers.adaround(layer.W, layer.X, scale, zero, layer.low, layer.high, steps, lr, strength)


def autoround(layer, arrays, iterations=200, lr=None):
    """Values."""
    lr = (2 if layer.bits <= 3 and iterations >= 1000 else 1) / iterations if lr is None else lr
    start = layer.encoded(layer.W)["scale"].reshape(-1)
    symmetric = layer.settings["symmetric"]
    return solvers.autoround(layer.W, layer.X, layer.rows, layer.bits, layer.low, symmetric, start, iterations, lr)


METHODS = {
    "awq": awq,
    "smoothquant": smoothquant,
    "weighted": weighted,
    "easyquant": easyquant,
    "zeroquant": zeroquant,
    "low_rank": low_rank,
    "hqq": hqq,
    "gptaq": gptaq,
    "sparsegpt": sparsegpt,
    "wanda": pruned,
    "magnitude": magnitude,
    "nearest": lambda layer, arrays: layer.encoded(layer.W),
    "sparse": sparse,
    "adaround": adaround,
    "autoround": autoround,
}


def transformed(function, inputs):
    """What folds scales and shifts into the layers around."""
    s = inputs.get("s")
    if s is not None and (s.ndim != 1 or not (s > 0).all()):
        raise Unsupported("refusals")
    if function == "fold_norm":
        return [inputs[name] / s for name in ("gain", "bias") if name in inputs]
    if function == "fold_rows":
        W, last = inputs["previous"].copy(), np.ones(len(inputs["previous"]), f32)
        last[len(W) - len(s) :] = s
        return [W / last[:, None], *([inputs["bias"] / last] if "bias" in inputs else [])]
    if function == "log_equalization":
        a = np.float64(inputs["a"])
        if (a < 0).any():
            raise Unsupported("refusals")
        return [f32(np.maximum(a / np.log2(2 + a), 1e-5))]
    if function == "migrate_gain":
        return [np.ones_like(inputs["gain"]), inputs["layers"] * inputs["gain"]]
    ends = np.sort(inputs["X"], axis=0)[[0, -1]]
    z = f32((np.float64(ends[0]) + ends[1]) / 2)
    moved = np.float64(inputs["W"]) @ z
    return [z, f32(moved + inputs["bias"] if "bias" in inputs else moved)]
