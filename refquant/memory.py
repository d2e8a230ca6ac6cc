"""How much memory a model needs, from a count of parameters or its header alone, and how much there is.

    estimate("10B", "nf4")     any model in any format: pipeline/estimate.py
    to_run(gguf, n_ctx)        the runtime of this project with a GGUF file, program and all:

    weights    sum of the bytes of all tensors (matrices are rearranged at load, without changing their size, and their
               pages of the file let go), and 4 bytes a value for every matrix of a type that is decoded to float32
    cache      n_ctx * n_layer * n_head_kv * (bytes(head_dim) + bytes(head_dim_v))
               bytes(n) is 2 n in f16, 4 n in f32, 34 for each 32 values begun in q8_0
    scratch    4 * batch * (2 n_embd + 2 q + k + v + o + 2 n_ff + widest) + 3 * batch * widest
               + 128 (n_vocab + n_embd) + 4 n_ctx rope_dim
               activations of one batch of the prompt as float32 (q, k, v, o: the widths of queries, keys, values and
               of all heads' values; widest: the largest of n_embd, n_ff and o), the widest once more in two 8-bit
               forms; 32 rows of logits; sin and cos of every position
               with experts, n_ff is the width of the shared one, or 0; batch * n_used rows of their own take
               4 (2 n_embd + 3 w) + 3 max(n_embd, w) bytes each, w being the width of an expert
    program    44 MiB + 120 n_vocab
               interpreter, NumPy and kernels read from the cache: 49.2 MiB resident with stories260K, less 3.5 MiB of
               weights, cache and scratch. The vocabulary with the tokenizer built of it: 270 MiB resident with a
               Qwen2.5 of one block and 151,936 entries in Q4_0 just loaded, less 44 + 207.7 (weights). (CPython 3.11,
               Linux x86-64, one thread; elsewhere LLVM links the kernels and takes 40 MiB more.) A start that
               compiles its kernels holds Numba and LLVM too, 150 MiB
    total      weights + cache + scratch + program

Units    bytes; people read MiB and GiB (2^20, 2^30).
Not in   what the system caches of the file besides.
"""

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refquant.errors import RangeError
from refquant.gguf import FORMATS, GGUFFile
from refquant.models.config import ModelConfig

if TYPE_CHECKING:
    from refquant.pipeline.checkpoint import Checkpoint
    from refquant.pipeline.estimate import Needs

KV_BLOCKS = {"f16": (1, 2), "f32": (1, 4), "q8_0": (32, 34)}  # (values, bytes)
EMBEDDING = "token_embd.weight"  # read row by row, and multiplied only where the output is tied to it
PROGRAM, PER_VOCABULARY_ENTRY = 44 << 20, 120
N_CTX_MAX = 2**31 - 1
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a model needs with a context of `n_ctx` tokens; `per_token` is what one of them adds to the total."""

    weights: int
    cache: int
    scratch: int
    program: int
    per_token: int
    n_ctx: int
    kv_dtype: str

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.scratch + self.program

    def context_for(self, free: int) -> int:
        """The largest n_ctx whose total is at most `free` bytes; 0 if there is none."""
        return max(0, free - (self.total - self.n_ctx * self.per_token)) // self.per_token

    def __str__(self) -> str:
        cache = f"KV cache {human(self.cache)} ({self.n_ctx} tokens, {self.kv_dtype})"
        rest = f"scratch {human(self.scratch)} + program {human(self.program)}"
        return f"{human(self.total)} = weights {human(self.weights)} + {cache} + {rest}"


def to_run(
    gguf: GGUFFile,
    n_ctx: int | None = None,
    kv_dtype: str = "f16",
    batch: int = 512,
    kernels: Collection[str] = frozenset(FORMATS),
) -> Memory:
    """What the runtime takes to run `gguf`, by the formulas above. n_ctx None is the length the model was trained for.

    `kernels` names the types that are multiplied as they lie in the file; a matrix of another type is decoded.
    Raises GGUFError (a header that describes no model we know), RangeError (n_ctx, batch, kv_dtype).
    """
    config = ModelConfig.from_metadata(gguf)
    n_ctx = config.n_ctx_train if n_ctx is None else n_ctx
    for name, value in (("n_ctx", n_ctx), ("batch", batch)):
        if not 1 <= value <= N_CTX_MAX:
            raise RangeError(f"memory.to_run: {name} = {value}, expected 1..{N_CTX_MAX}")
    if kv_dtype not in KV_BLOCKS:
        raise RangeError(f"memory.to_run: kv_dtype = {kv_dtype!r}, expected one of {', '.join(KV_BLOCKS)}")
    cached = cache_per_token(config, kv_dtype)
    widest = max(config.n_embd, config.n_ff_dense, config.o_width)
    attention = 2 * config.q_width + config.k_width + config.v_width + config.o_width
    activations = 2 * config.n_embd + attention + 2 * config.n_ff_dense + widest
    scratch = 4 * batch * activations + 3 * batch * widest
    if (m := config.mixture) is not None:
        scratch += batch * m.n_used * (4 * (2 * config.n_embd + 3 * m.n_ff) + 3 * max(config.n_embd, m.n_ff))
    scratch += 128 * (config.n_vocab + config.n_embd) + 4 * n_ctx * config.rope_dim
    program = PROGRAM + PER_VOCABULARY_ENTRY * config.n_vocab
    multiplied = [
        tensor
        for name, tensor in gguf.tensors.items()
        if len(tensor.shape) in (2, 3) and (name != EMBEDDING or config.tied_output)
    ]
    decoded = sum(4 * math.prod(tensor.shape) for tensor in multiplied if tensor.type not in kernels)
    weights = sum(tensor.nbytes for tensor in gguf.tensors.values()) + decoded
    return Memory(weights, n_ctx * cached, scratch, program, cached + 4 * config.rope_dim, n_ctx, kv_dtype)


def estimate(
    model: "str | int | os.PathLike | Checkpoint",
    scheme: str | None = None,
    *,
    context: int = 0,
    kv: str = "f16",
    batch: int = 1,
) -> "Needs":
    """Bytes of weights, KV cache and activations of "10B", a folder or a GGUF file; see pipeline/estimate.py."""
    from refquant.pipeline.estimate import estimate as needed

    return needed(model, scheme, context=context, kv=kv, batch=batch)


def cache_per_token(config: ModelConfig, kv_dtype: str) -> int:
    """Bytes of the keys and values of one position, all layers together."""
    values, size = KV_BLOCKS[kv_dtype]
    head = sum(-(-dim // values) * size for dim in (config.head_dim, config.head_dim_v))
    return config.n_layer * config.n_head_kv * head


def available(root: Path = Path("/")) -> int | None:
    """Bytes a new program may take without swapping, or None where the system does not say.

    Linux: MemAvailable of /proc/meminfo and the room in every memory cgroup above this process, whichever is least
    (a container's limit is invisible in meminfo). Elsewhere the installed memory, an upper bound, if sysconf knows it.
    `root` is where /proc and /sys are looked for.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        if root == Path("/") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= getattr(os, "sysconf_names", {}).keys():
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None
    return min([free, *_cgroup_room(root)])


def human(count: int) -> str:
    """Three significant digits in a binary unit: 999 B, 1.00 KiB, 17.4 MiB, 7.61 GiB."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    decimals = 0 if unit == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {UNITS[unit]}"


def _cgroup_room(root: Path) -> list[int]:
    """limit - usage of the cgroups this process is in, page cache that can be dropped counted as room."""
    try:
        entries = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    room = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers == "":  # version 2
            mount, limit, usage, cached = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount = "sys/fs/cgroup/memory"
            limit, usage, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = Path(path.lstrip("/"))
        for folder in [root / mount / group, *(root / mount / parent for parent in group.parents)]:
            try:
                # "max" is no limit: int() refuses it, and so it should
                bound = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            room.append(max(0, bound - used + int(statistics.get(cached, 0))))
    return room
