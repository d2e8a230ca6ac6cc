"""VPTQ, decoding: v weights below each other in a column are one vector of a learned codebook.

    W'[v i + a, c] = C_b[k_ic][a] + R_b[r_ic][a]       b: the book of column c;  R, vectors of what is left, optional
    outliers: the first columns of W', with a codebook, a v and indices of their own, and no R
    W^ = W'[:, argsort(perm)] * weight_scale + weight_bias          both (in,): column perm[c] of W^ is column c of W'

    tensor                    shape                                    settings
    centroids.weight          (books, num_centroids[1] v)              v = vector_lens[1], books = group_num
    res_centroids.weight      (books, num_res_centroids[1] v)          num_res_centroids[1] > 0
    indices                   (books, ceil(out / v), words) int32      is_indice_packed
    indices, res_indices      (books, ceil(out / v), group_size)       16 bits each, where they are not packed
    outlier_centroids.weight  (1, num_centroids[0] v')                 v' = vector_lens[0] > 1
    outlier_indices           (1, ceil(out / v'), outlier_size)        16 bits each
    perm, weight_scale, weight_bias    (in,) each                      optional

Columns    outliers first, then group_size columns a book. Rows beyond `out`, of the last vector, are cut off.
Packed     element j of a row is k + 2^b r, b = log2 num_centroids[1], of t = b + log2 num_res_centroids[1] bits, both
           logarithms rounded up: bits t j .. t j + t - 1 of the row's words, the lowest bit of a word first. A row
           begins with a new word.
16 bits    int16 and float16 stand for the uint16 of the same bits: collective operations know no uint16.
Arithmetic float32 in the order written. VPTQ computes in the dtype of the centroids, float16 or bfloat16.
Differs    vptq's PyTorch decoder masks r with b bits, not its own: it is wrong where R has more vectors than C. Its
           kernels, and this page, take all of r.
Not here   the encoder (Hessian-weighted k-means, LDLQ on vectors).
Source     Liu et al. 2024, arXiv:2409.17066, sec. 3; vptq 0.0.5 layers/vqlinear.py, ops/quant_gemm.py, utils/pack.py.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Settings:
    """What config.json says of a layer, by its names; pairs are (outliers, the rest)."""

    in_features: int
    out_features: int
    vector_lens: tuple[int, int]
    num_centroids: tuple[int, int]
    num_res_centroids: tuple[int, int]
    group_num: int
    group_size: int
    outlier_size: int = 0
    is_indice_packed: bool = False

    def __post_init__(self):
        coded = self.group_num * self.group_size + self.outliers
        if min(self.in_features, self.out_features, self.vector_lens[1], self.group_num, self.group_size) < 1:
            raise RangeError(f"vptq: settings = {self}, expected positive sizes")
        if self.num_centroids[1] < 2 or coded != self.in_features:
            raise RangeError(
                f"vptq: num_centroids, columns = {self.num_centroids}, {coded}, expected at least 2 of the rest, and "
                f"in_features = {self.in_features}: group_num * group_size and the outliers"
            )

    @classmethod
    def from_config(cls, entry: Mapping[str, object]) -> "Settings":
        """An entry of quantization_config["config_for_layers"]; keys that say nothing of the layout are left out."""
        known = {f.name for f in fields(cls)}
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key in known}
        missing = {f.name for f in fields(cls) if f.default is MISSING} - set(given)
        if missing:
            raise QuantError(f"vptq: config lacks {sorted(missing)}, expected all of them")
        return cls(**given)

    @property
    def outliers(self) -> int:
        """Columns of outliers."""
        return self.outlier_size if self.vector_lens[0] > 1 and self.num_centroids[0] > 0 else 0


@np.errstate(over="ignore", invalid="ignore")  # centroids and scales of a file may be infinite
def decode(settings: Settings, tensors: Tensors) -> np.ndarray:
    """W^ float32 (out, in). Raises QuantError, ShapeError, RangeError."""
    s, v = settings, settings.vector_lens[1]
    k, r = indices(s, tensors)
    W = _vectors("centroids.weight", tensors, k, s.num_centroids[1], v)  # (books, vectors * v, columns)
    if r is not None:
        W = W + _vectors("res_centroids.weight", tensors, r, s.num_res_centroids[1], v)
    W = W.swapaxes(0, 1).reshape(W.shape[1], -1)[: s.out_features]
    if s.outliers:
        shape = (1, -(-s.out_features // s.vector_lens[0]), s.outliers)
        k = _sixteen_bits("outlier_indices", tensors, shape)
        outliers = _vectors("outlier_centroids.weight", tensors, k, s.num_centroids[0], s.vector_lens[0])
        W = np.concatenate([outliers[0, : s.out_features], W], axis=1)
    if "perm" in tensors:
        W = W[:, np.argsort(_permutation(tensors["perm"], s.in_features))]
    for name, apply in (("weight_scale", np.multiply), ("weight_bias", np.add)):
        if name in tensors:
            W = apply(W, _shaped(name, tensors, (s.in_features,)).astype(np.float32))
    return np.ascontiguousarray(W)


def indices(settings: Settings, tensors: Tensors) -> tuple[np.ndarray, np.ndarray | None]:
    """(k, r) of the rest, int64 (books, vectors, columns); r None without residual vectors."""
    s, residual = settings, settings.num_res_centroids[1] > 0
    shape = (s.group_num, -(-s.out_features // s.vector_lens[1]), s.group_size)
    if not s.is_indice_packed:
        return tuple(
            _sixteen_bits(name, tensors, shape) if present else None
            for name, present in (("indices", True), ("res_indices", residual))
        )
    low = (s.num_centroids[1] - 1).bit_length()
    total = low + ((s.num_res_centroids[1] - 1).bit_length() if residual else 0)
    words = _shaped("indices", tensors, (*shape[:2], -(-s.group_size * total // 32)))
    if words.dtype != np.int32:
        raise QuantError(f"vptq: indices.dtype = {words.dtype}, expected int32 words")
    bits = np.unpackbits(np.ascontiguousarray(words).astype("<i4").view(np.uint8), axis=-1, bitorder="little")
    bits = bits[..., : s.group_size * total].reshape(*shape, total).astype(np.int64)
    both = bits @ (1 << np.arange(total))
    return both & ((1 << low) - 1), both >> low if residual else None


def _vectors(name: str, tensors: Tensors, k: np.ndarray, count: int, length: int) -> np.ndarray:
    """Vectors k (books, vectors, columns) of a codebook, standing: float32 (books, vectors * length, columns)."""
    books = _shaped(name, tensors, (len(k), count * length)).astype(np.float32).reshape(len(k), count, length)
    if k.max() >= count:
        raise RangeError(f"vptq: an index into {name} = {k.max()}, expected 0..{count - 1}")
    found = books[np.arange(len(k))[:, None, None], k]  # (books, vectors, columns, length)
    return found.swapaxes(2, 3).reshape(len(k), -1, k.shape[2])


def _sixteen_bits(name: str, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
    found = _shaped(name, tensors, shape)
    if found.dtype.name not in ("int16", "uint16", "float16"):
        raise QuantError(f"vptq: {name}.dtype = {found.dtype}, expected int16, uint16 or float16: 16 bits each")
    return np.ascontiguousarray(found).view(np.uint16).astype(np.int64)


def _permutation(perm: np.ndarray, count: int) -> np.ndarray:
    perm = perm.view(np.uint16) if perm.dtype == np.int16 else perm
    if perm.shape != (count,) or not np.array_equal(np.sort(perm), np.arange(count)):
        raise RangeError(f"vptq: perm = {perm.dtype} {perm.shape}, expected each of 0..{count - 1} once")
    return perm


def _shaped(name: str, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
    if name not in tensors:
        raise QuantError(f"vptq: tensors = {sorted(tensors)}, expected {name} among them")
    if tensors[name].shape != shape:
        raise ShapeError(f"vptq: {name}.shape = {tensors[name].shape}, expected {shape}")
    return tensors[name]
