"""`refquant estimate`: how much memory a model takes in every usual format, to run it and to train it."""

import argparse

from refquant import inspection
from refquant.errors import RangeError
from refquant.pipeline import estimate

SCHEMES = ("FP32", "FP16", "INT8", "NF4", "int8-channel", "int4-g128", "nf4", "nf4-dq", "Q6_K", "Q4_K")


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the epilog is what estimate.py states."""
    parser.description = "Estimate the memory of a model: 10B (parameters), or a Hugging Face folder."
    parser.epilog = (estimate.__doc__ or "").partition("\n\n")[2]
    parser.add_argument("model", metavar="COUNT or MODEL_DIR")
    parser.add_argument("--context", type=int, default=0, help="tokens of the KV cache; needs a folder")
    parser.add_argument("--kv", choices=[*estimate.CACHE], default="f16", help="type of the cache, default f16")
    parser.add_argument("--batch", type=int, default=1, help="sequences at a time, default 1")
    parser.add_argument("--devices", type=int, default=8, help="for the rows of ZeRO, default 8")
    parser.add_argument("--memory", type=float, metavar="GB", help="say which format fits into so many gigabytes")


def run(arguments: argparse.Namespace) -> list[str]:
    """Two tables and, if asked for, a recommendation. Raises QuantError."""
    model = estimate.model_of(arguments.model)
    rows = []
    for scheme in SCHEMES:
        needs = estimate.estimate(model, scheme, context=arguments.context, kv=arguments.kv, batch=arguments.batch)
        rows.append((scheme, f"{estimate.bits_per_weight(scheme):.2f}", _gb(needs.weights), _gb(needs.total)))
    lines = [f"{estimate.parameters(model) / 1e9:.3g} billion parameters", ""]
    lines += inspection.table(("to run", "bits", "weights GB", "total GB"), rows, right=(1, 2, 3))
    ways = [("full, ZeRO stage " + str(s), ("full", s)) for s in range(4)] + [
        ("LoRA", ("lora", 0)),
        ("QLoRA", ("qlora", 0)),
    ]
    training = [
        (name, _gb(estimate.training(model, how, stage=stage, devices=arguments.devices)))
        for name, (how, stage) in ways
    ]
    title = f"to train, on each of {arguments.devices}"
    lines += ["", *inspection.table((title, "GB"), training, right=(1,))]
    if arguments.memory is not None:
        if not 0 < arguments.memory < 1e9:
            raise RangeError(f"estimate: memory = {arguments.memory}, expected gigabytes above 0")
        found = estimate.recommend(model, int(arguments.memory * 1e9), arguments.context)
        lines += ["", f"{arguments.memory:g} GB: {found or 'no usual format fits, a smaller model would'}"]
    return lines


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}"
