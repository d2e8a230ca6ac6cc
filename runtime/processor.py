"""What this CPU is called, which instruction sets for kernels of language models it has, what tells it from others."""

import platform
import re
from pathlib import Path

RELEVANT = re.compile(r"avx|fma|f16c|amx|asimd|sve|i8mm|bf16|neon|vnni|dotprod|fphp", re.IGNORECASE)

IDENTITY = ("vendor_id", "cpu family", "model", "stepping", "flags")  # x86
IDENTITY += ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")  # ARM


def processor(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """(name, flags) as Linux tells them; elsewhere what Python knows, and no flags. `root` is where /proc is."""
    fallback = platform.processor() or platform.machine()
    fields = _fields(root)
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", fallback), tuple(flag for flag in flags if RELEVANT.search(flag))


def identity(root: Path = Path("/")) -> str:
    """Everything that decides which instructions a compiler may use, as Linux tells it; elsewhere nothing."""
    fields = _fields(root)
    return "\n".join(fields[name] for name in IDENTITY if name in fields)


def _fields(root: Path) -> dict[str, str]:
    """What /proc/cpuinfo says of the first CPU."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", text.partition("\n\n")[0], re.MULTILINE))
