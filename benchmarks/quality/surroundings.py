"""When and with what the results were made, in words that name no machine."""

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path


def made() -> dict[str, str]:
    """Date, machine class and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba"))
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} {processor()} cores",
        "versions": f"Python {platform.python_version()}, {packages}",
    }


def processor() -> str:
    """The microarchitecture where /proc/cpuinfo tells it by family and model, else the vendor or the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    vendor, family = fields.get("vendor_id", ""), fields.get("cpu family", "")
    if (vendor, family) == ("AuthenticAMD", "25"):
        return "Zen 4" if "avx512f" in fields.get("flags", "") else "Zen 3"
    return {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(vendor, platform.machine())
