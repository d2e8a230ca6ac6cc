"""What kernels name stands for what the SIMD modules define, all of it, and CPUs are known without LLVM."""

from importlib import import_module

import pytest
from llvmlite import binding
from numba.extending import _Intrinsic

from runtime import simd
from runtime.promise import Promise
from runtime.simd import tier


@pytest.mark.parametrize("module", simd.NAMES)
def test_every_operation_of_a_module_is_promised_and_every_promise_kept(module):
    defined = vars(import_module(f"runtime.simd.{module}"))
    operations = {name for name, value in defined.items() if isinstance(value, _Intrinsic) and name[0] != "_"}
    assert set(simd.NAMES[module].split()) == operations
    for name in operations:
        promise = getattr(simd, name)
        assert isinstance(promise, Promise)
        assert promise.made is defined[name]


def test_the_operations_of_tiles_are_promised_too():
    promised = vars(simd.tile_operations(2))
    made = vars(import_module("runtime.simd.tiles").tile_operations(2))
    assert promised.keys() == made.keys()
    assert type(promised["rank_one"].made) is type(made["rank_one"])


def test_the_system_names_the_same_instruction_sets_as_llvm():
    known = {name for name, has in binding.get_host_cpu_features().items() if has}
    needed = {name for names in tier.NEEDS.values() for name in names} | {"avx512bf16"}
    assert needed & tier.features() == needed & known
