"""SIMD vectors as Numba values, memory by byte offset, and the few operations that differ from CPU to CPU."""
