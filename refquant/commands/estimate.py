"""`refquant estimate`: how much memory a model takes in every usual format, to run it and to train it."""

import argparse
import json

from refquant import gguf, inspection, memory
from refquant.errors import QuantError
from refquant.pipeline import estimate
from refquant.pipeline.checkpoint import Checkpoint

PLAIN = ("FP32", "FP16", "INT8", "INT4", "NF4")  # codes alone: the classic table
SCHEMES = (*PLAIN, "int8-channel", "int4-g128", "nf4", "nf4-dq", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
STORED = "as it is"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the epilog is what estimate.py states."""
    parser.description = "Estimate the memory of a model: 10B (parameters), a Hugging Face folder, or a GGUF file."
    parser.epilog = (estimate.__doc__ or "").partition("\n\n")[2]
    parser.add_argument("model", metavar="COUNT_OR_MODEL", help="parameters (10B, 7.6B, 500M), a folder, a GGUF file")
    parser.add_argument("--context", type=int, default=0, help="tokens of the KV cache; needs a folder or a file")
    parser.add_argument("--kv", choices=[*estimate.CACHE], default="f16", help="type of the cache, default f16")
    parser.add_argument("--batch", type=int, default=1, help="sequences at a time, default 1")
    parser.add_argument("--devices", type=int, default=8, help="for the rows of ZeRO, default 8")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters of LoRA, default 16")
    parser.add_argument("--fits", metavar="SIZE", help="say which format fits into a memory such as 8GB or 24GiB")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")


def run(arguments: argparse.Namespace) -> list[str]:
    """Two tables and, if asked for, a recommendation; or JSON. Raises QuantError."""
    model = estimate.model_of(arguments.model)
    options = {"context": arguments.context, "kv": arguments.kv, "batch": arguments.batch}
    rows = _rows(model, options)
    training = {
        name: estimate.training(model, how, stage=stage, devices=arguments.devices, rank=arguments.rank)
        for name, how, stage in _WAYS
    }
    fits = None
    if arguments.fits is not None:
        fits = estimate.recommend(model, estimate.memory_size(arguments.fits), **options)
    if arguments.json:
        facts = {
            "parameters": estimate.parameters(model),
            "run": {name: {"weights": n.weights, "cache": n.cache, "total": n.total} for name, _, n in rows},
            "train": training,
        }
        return [json.dumps(facts | ({} if arguments.fits is None else {"fits": fits}), indent=1)]
    shown = [(name, bits, _gb(needs.weights), _gb(needs.total)) for name, bits, needs in rows]
    lines = [f"{estimate.parameters(model) / 1e9:.3g} billion parameters", ""]
    lines += inspection.table(("to run", "bits", "weights GB", "total GB"), shown, right=(1, 2, 3))
    if arguments.context and not isinstance(model, Checkpoint):
        lines += ["", "the cache of a bare count is not known: name a folder or a file for --context"]
    lines += _runtime(model, arguments.context, arguments.kv)
    title = f"to train, on each of {arguments.devices}"
    lines += ["", *inspection.table((title, "GB"), [(n, _gb(b)) for n, b in training.items()], right=(1,))]
    if arguments.fits is not None:
        lines += ["", f"{arguments.fits}: {fits or 'no usual format fits, a smaller model would'}"]
    return lines


_WAYS = (
    *((f"full, ZeRO stage {stage}", "full", stage) for stage in range(4)),
    ("LoRA", "lora", 0),
    ("LoRA, ZeRO stage 3", "lora", 3),
    ("QLoRA", "qlora", 0),
)


def _rows(model: str | Checkpoint, options: dict) -> list[tuple[str, str, estimate.Needs]]:
    """(name, bits, needs) of every format that fits the shapes of the model."""
    rows = []
    if isinstance(model, Checkpoint):
        needs = estimate.estimate(model, **options)
        rows.append((STORED, f"{8 * needs.weights / model.parameters:.2f}", needs))
    for scheme in SCHEMES:
        try:
            needs = estimate.estimate(model, scheme, **options)
        except QuantError:
            if not isinstance(model, Checkpoint):
                raise
            continue  # rows that its groups do not divide
        bits = estimate.bits_per_weight(scheme)
        if isinstance(model, Checkpoint):
            bits = 8 * needs.weights / model.parameters
        rows.append((scheme, f"{bits:.2f}", needs))
    return rows


def _runtime(model: str | Checkpoint, context: int, kv: str) -> list[str]:
    """What the runtime of this project takes with a GGUF file."""
    if not isinstance(model, Checkpoint) or not model.path.is_file():
        return []
    with gguf.open(model.path) as file:
        return ["", f"in the runtime: {memory.to_run(file, context or None, kv)}"]


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}" if count >= 1e8 else f"{count / 1e9:.4f}"
