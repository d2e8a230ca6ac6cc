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

from refquant.errors import RangeError
from runtime.processor import processor

NEEDS = {
    "avx512-vnni": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "avx-vnni": ("avx2", "avxvnni"),
    "avx2": ("avx2",),
    "neon-dotprod": ("neon", "dotprod"),
    "portable": (),
}


# What a forced tier compiles for, so that it runs as it would on a CPU that has no more.
AVX2_CPU = ("haswell", "+avx,+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2,+lzcnt")
GIVEN_CPU = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
LLVM_NAMES = {"asimd": "neon", "asimddp": "dotprod"}  # other names of Linux differ by underscores at most


def features() -> set[str]:
    """LLVM's names of what this CPU can do, or of what NUMBA_CPU_FEATURES says it can."""
    if GIVEN_CPU[1] is not None:
        return {name[1:] for name in GIVEN_CPU[1].split(",") if name.startswith("+")}
    if flags := processor()[1]:
        return {LLVM_NAMES.get(flag, flag.replace("_", "")) for flag in flags}
    from llvmlite import binding

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
    return forced


def target(tier: str) -> tuple[str | None, str | None]:
    """(name, features) of the CPU that `tier` is compiled for; None: this one."""
    forced = os.environ.get("REFQUANT_SIMD") == tier
    return AVX2_CPU if forced and tier == "avx2" and GIVEN_CPU[0] is None else GIVEN_CPU


TIER = choose()
VNNI = TIER in ("avx512-vnni", "avx-vnni")
BF16_DOTS = TIER == "avx512-vnni" and "avx512bf16" in features()  # vdpbf16ps
CHECKED = os.environ.get("REFQUANT_CHECKED", "") not in ("", "0")

# How much too high activations come to be multiplied with signed weights (runtime.simd.signed says why).
EXCESS_SMALL = 128 if VNNI or TIER == "avx2" else 0
EXCESS_ANY = 128 if VNNI else 0
