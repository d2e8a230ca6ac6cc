"""A Hugging Face folder as a GGUF file in one go, with the compiled encoders: `python -m runtime.quantize FOLDER ...`.

    quantize(Path("Qwen2.5-0.5B"), Path("out.gguf"), "Q4_K_M", executor="threads:4")
    encoders(["Q4_K", "Q6_K"])        the table for refquant.oneshot(..., encoders=...); its functions can be pickled

Reading, naming, ordering and choosing types are refquant.pipeline's, and so are the methods that look at a calibration
text; the bytes are those that the folder as an F32 file gives in `runtime.quantize`. Interrupted, it goes on where it
was with the same command.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from refquant.errors import QuantError
from refquant.gguf import FORMATS
from refquant.gguf.file_types import Choices, Model, select
from refquant.pipeline import Result, oneshot, open_checkpoint, recipe
from refquant.pipeline.executor import Executor
from refquant.pipeline.to_gguf import Encoder, Progress, file_type_of, metadata, tensor_shapes
from runtime.compilation import prepare
from runtime.encoders import ENCODERS, RowEncoder
from runtime.encoders import quantize as encode


def quantize(
    source: Path,
    target: Path,
    file_type: str,
    *,
    choices: Choices | None = None,
    importance: Mapping[str, np.ndarray] | None = None,
    method: str | None = None,
    calibration: Path | None = None,
    samples: int = 128,
    seq_len: int = 2048,
    executor: str | Executor = "threads",
    progress: Progress | None = None,
) -> Result:
    """Write `target`. See `refquant.oneshot` for the keywords and for what is raised."""
    checkpoint = open_checkpoint(source)
    if target.exists():  # before anything is compiled
        raise QuantError(f"{target}: exists already, expected a new name")
    table = encoders(types(checkpoint, file_type, choices), importance is not None, progress)
    return oneshot(
        checkpoint,
        recipe.read(file_type, method=method),
        calibration,
        target,
        samples=samples,
        seq_len=seq_len,
        encoders=table,
        executor=executor,
        gguf={"choices": choices, "importance": importance},
        progress=progress,
    )


def types(checkpoint: object, file_type: str, choices: Choices | None = None) -> dict[str, str]:
    """{tensor: type} of the file that a folder becomes, in its order. Raises QuantError and its kinds."""
    mix, chosen = file_type_of(file_type, choices)
    entries = metadata(checkpoint, mix, with_vocabulary=False)
    model = Model.from_metadata({key: value for key, (_, value) in entries.items()})
    return select({name: (shape, "F32") for name, shape in tensor_shapes(checkpoint).items()}, mix, model, chosen)


def encoders(
    wanted: Mapping[str, str] | Iterable[str], weighted: bool = False, progress: Progress | None = None
) -> dict[str, Encoder]:
    """{type: function(x, imatrix=None)} for the types that are wanted, compiled, where we have one."""
    names = wanted.values() if isinstance(wanted, Mapping) else wanted
    table, kernels = {}, {}
    for name in dict.fromkeys(names):
        if name in ENCODERS and (weighted or ENCODERS[name].plain is not None):
            table[name] = partial(encode, type_name=name)
            n = FORMATS[name].values
            given = np.ones(n, np.float32) if weighted else None
            kernels |= {kernel.name: kernel for kernel in RowEncoder(name, n, given).kernels}
    prepare(list(kernels.values()), progress)
    return table
