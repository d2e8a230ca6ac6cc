"""The name of this CPU and the instruction sets that kernels for language models care about."""

import platform
import re
from pathlib import Path

RELEVANT = re.compile(r"avx|fma|f16c|amx|asimd|sve|i8mm|bf16|neon|vnni|dotprod|fphp", re.IGNORECASE)


def processor(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """(name, flags) as Linux tells them; elsewhere what Python knows, and no flags. `root` is where /proc is."""
    fallback = platform.processor() or platform.machine()
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return fallback, ()
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", fallback), tuple(flag for flag in flags if RELEVANT.search(flag))
