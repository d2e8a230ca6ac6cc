"""SIMD vectors as Numba values, memory by byte offset, and the few operations that differ from CPU to CPU.

    from runtime.simd import buffer, dot_narrow, load_f32x16      what kernels are written in

The names are promises (runtime.promise) of what the modules named below define with Numba, which is not imported before
a kernel is compiled.
"""

from importlib import import_module
from types import SimpleNamespace

from runtime.promise import Promise

FIELDS = 4  # of 16 rows: what turn_8, turn_16 and turn_32 turn at a time

NAMES = {
    "memory": """
        buffer window integer number prefetch
        load_f32x16 load_f16x16 load_bf16x16 load_i32x16 load_u16x16 load_u8x16 load_i8x16 load_u8x64
        broadcast_4 broadcast_f32 broadcast_f16 broadcast_i32
        load_f32 load_i32 load_i64 load_u8 load_u16
        store_f32x16 store_f16x16 store_bf16x16 store_i32x16 store_i8x16 store_u8x64
        store_f32 store_f16 store_i32 store_i64 store_u16 store_u8
        round_f16 widen_f16 narrow_f16 half_bits""",
    "vectors": """
        splat_f32 splat_i32 to_f32 to_i32 as_u8 as_i32 f32_bits bits_f32 round_half_even absolute larger smaller
        sum_lanes sum_lanes_i32 largest_lane smallest_lane zero_below count_up where_above even_lanes odd_lanes
        minus_where count_bits""",
    "dot": "dot_narrow dot_wide start_wide",
    "lookup": "lookup_16",
    "columns": "columns_by_4 columns_by_8 lane",
    "transpose": "turn_32 turn_16 turn_8",
    "threads": """
        atomic_add atomic_load atomic_store compare_and_swap spin_pause give_way let_go call_kernel call_unpack""",
}
TILE_OPERATIONS = """
    zeros load store start start_wide outer outer_wide outer_small outer_any outer_pairs scaled lowered nothing weighted
    alike rank_one fused fused_pairs ask_for offset"""


def _promise(module: str, name: str) -> Promise:
    return Promise(lambda: getattr(import_module(f"runtime.simd.{module}"), name))


for _module, _names in NAMES.items():
    globals().update({name: _promise(_module, name) for name in _names.split()})


def tile_operations(tokens: int) -> SimpleNamespace:
    """The operations of runtime.simd.tiles for tiles of `tokens` tokens."""
    tiles = Promise(lambda: import_module("runtime.simd.tiles").tile_operations(tokens))
    operation = lambda name: Promise(lambda: getattr(tiles.made, name))
    return SimpleNamespace(**{name: operation(name) for name in TILE_OPERATIONS.split()})
