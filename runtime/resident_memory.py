"""How much memory this process holds, the parts it made apart from the pages of files that are mapped.

    peak         most of resident memory since the start, or since `reset_peak`
    anonymous    pages that belong to no file: arrays, packed weights, the KV cache, the interpreter
    file         pages of mapped files: weights as they lie in the file, libraries. The system takes them back at will.

Source  Linux: VmHWM of /proc/self/status, Rss and Anonymous of /proc/self/smaps_rollup (Linux 4.14); see proc(5).
        Elsewhere the peak alone, from getrusage; on Windows nothing.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """Bytes, or None where the system does not say."""

    peak: int | None = None
    anonymous: int | None = None
    file: int | None = None


def resident_memory(root: Path = Path("/")) -> ResidentMemory:
    """What this process holds now. `root` is where /proc is looked for."""
    status = _kibibytes(root / "proc/self/status")
    rollup = _kibibytes(root / "proc/self/smaps_rollup")
    peak = status["VmHWM"] if "VmHWM" in status else _rusage_peak()
    if not {"Rss", "Anonymous"} <= rollup.keys():
        return ResidentMemory(peak)
    return ResidentMemory(peak, rollup["Anonymous"], rollup["Rss"] - rollup["Anonymous"])


def reset_peak() -> bool:
    """Let the peak start again from what is resident now; whether the system allowed it (Linux 4.0)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _kibibytes(path: Path) -> dict[str, int]:
    """The lines "name: number kB" of a file, in bytes."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) * KIB for line in lines if len(line) == 3 and line[2] == "kB"}


def _rusage_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB
