"""QuantizedTensor: an array in a number format, as logical codes with what is needed to decode them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from refquant.codecs import CODECS, Parts
from refquant.errors import QuantError
from refquant.schemes import Scheme


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class QuantizedTensor:
    """x^ = (codes - zero_point) * scale, or what the format says instead.

    codes       one code a weight in the shape of the array, int8 or uint8, not packed (bits.pack does that);
                of a GGUF type the block bytes, uint8 (..., row bytes)
    scale       float32 in the shape of groups.scale_shape; None where the blocks hold it
    zero_point  like scale, or () where one constant serves all; None for codebooks and blocks
    scheme      the format; shape: of the array that was quantized
    extras      further arrays that some formats need, by name

    All arrays are read-only. They are views: who keeps a writeable reference to what was passed in must not write.
    """

    codes: np.ndarray
    scale: np.ndarray | None
    zero_point: np.ndarray | None
    scheme: Scheme
    shape: tuple[int, ...]
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("codes", "scale", "zero_point"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        extras = MappingProxyType({name: _read_only(a) for name, a in self.extras.items()})
        object.__setattr__(self, "extras", extras)

    def dequantize(self) -> np.ndarray:
        """The array that the codes stand for: a new float32 array of `shape`."""
        if "g_idx" in self.extras:
            return self._scattered()
        parts = Parts(self.codes, self.scale, self.zero_point, self.extras)
        return CODECS[type(self.scheme.rule)].decode(parts, self.scheme.rule, self.scheme.granularity)

    def _scattered(self) -> np.ndarray:
        """Groups that are not neighbours: extras["g_idx"] (in,) names the group of each column (gptq.py)."""
        order = np.argsort(self.extras["g_idx"], kind="stable")
        extras = {name: array for name, array in self.extras.items() if name != "g_idx"}
        gathered = replace(self, codes=self.codes[..., order], extras=extras)
        x = np.empty(self.shape, np.float32)
        x[..., order] = gathered.dequantize()
        return x

    @property
    def nbytes(self) -> int:
        """Bytes as a file would hold them: packed codes, scales at their width, zero points unless constant."""
        return self.scheme.nbytes(self.shape) + sum(a.nbytes for a in self.extras.values())

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / weights, scales and zero points included."""
        return 8 * self.nbytes / self.size

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """np.asarray(q) dequantizes; copy=False is refused, since decoding always makes a new array."""
        if copy is False:
            raise QuantError(
                "QuantizedTensor.__array__: copy = False, expected None or True: decoding makes a new array"
            )
        return self.dequantize().astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        facts = f"shape={self.shape}, {self.bits_per_weight:.4g} bits per weight, {self.nbytes:,} bytes"
        return f"QuantizedTensor({self.scheme}, {facts})"


def _read_only(array: np.ndarray | None) -> np.ndarray | None:
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view
