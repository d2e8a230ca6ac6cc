"""Where backends of torch compute: CONFORMANCE_DEVICE, or an accelerator where torch sees one, or the processor."""

import os

from conformance.protocol import Unsupported

VARIABLE = "CONFORMANCE_DEVICE"


def device() -> str:
    """What torch calls it: cpu, cuda, xpu, mps. Wants torch where the variable does not say."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return chosen
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def of_torch(version: str) -> str:
    """A version of a package, with the name of the accelerator if there is one. Raises Unsupported without it."""
    import torch

    where = device()
    if where == "cpu":
        return version
    if where.startswith("cuda") and not torch.cuda.is_available():
        raise Unsupported(f"no {where} here")
    return f"{version} on {torch.cuda.get_device_name() if where.startswith('cuda') else where}"
