"""SIMD vectors as Numba values: a kernel holds registers in ordinary Python variables."""

from runtime.simd.vectors import (
    LANES,
    add,
    bits_float,
    dot_16,
    dot_32,
    f32x16,
    float_bits,
    load_bf16,
    load_f16,
    load_f32,
    load_u16,
    mul,
    reduce_add,
    splat,
    store_f32,
)

__all__ = [
    "LANES",
    "add",
    "bits_float",
    "dot_16",
    "dot_32",
    "f32x16",
    "float_bits",
    "load_bf16",
    "load_f16",
    "load_f32",
    "load_u16",
    "mul",
    "reduce_add",
    "splat",
    "store_f32",
]
