"""Which instructions this process uses: chosen once, at import.

    avx512-vnni   vpdpbusd on 512 bits (Ice Lake, Zen 4 and later)
    avx-vnni      vpdpbusd on 256 bits (Alder Lake and later)
    avx2          vpmaddubsw + vpmaddwd on 256 bits
    neon-dotprod  sdot / udot on 128 bits (Armv8.2 and later)
    portable      LLVM's generic vectors: every CPU

REFQUANT_SIMD forces one of them; a tier that this CPU cannot run is refused, and avx2 makes Numba compile for a CPU
that has no more (unless NUMBA_CPU_NAME names one). All tiers compute the same integers and the
same float order, so they give the same bits.
"""

import os

from llvmlite import binding
from numba.core import config

from refquant.errors import RangeError

NEEDS = {
    "avx512-vnni": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "avx-vnni": ("avx2", "avxvnni"),
    "avx2": ("avx2",),
    "neon-dotprod": ("neon", "dotprod"),
    "portable": (),
}


# What a forced tier compiles for, so that it runs as it would on a CPU that has no more.
AVX2_CPU = ("haswell", "+avx,+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2,+lzcnt")


def features() -> set[str]:
    """LLVM's names of what this CPU can do, or of what NUMBA_CPU_FEATURES says it can."""
    if config.CPU_FEATURES is not None:
        return {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    return {name for name, has in binding.get_host_cpu_features().items() if has}


def choose() -> str:
    """The tier that REFQUANT_SIMD names, or the best that the CPU can run."""
    have = features()
    possible = [name for name, needs in NEEDS.items() if set(needs) <= have]
    forced = os.environ.get("REFQUANT_SIMD")
    if forced is None:
        return possible[0]
    if forced not in possible:
        raise RangeError(f"REFQUANT_SIMD = {forced!r}, expected one that this CPU can run: {', '.join(possible)}")
    if forced == "avx2" and config.CPU_NAME is None:
        config.CPU_NAME, config.CPU_FEATURES = AVX2_CPU
    return forced


TIER = choose()
BF16_DOTS = TIER == "avx512-vnni" and "avx512bf16" in features()  # vdpbf16ps
CHECKED = os.environ.get("REFQUANT_CHECKED", "") not in ("", "0")
