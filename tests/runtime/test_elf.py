"""Object files linked without LLVM do what they do linked by LLVM, and what is not known is left to it."""

import ctypes
import struct

import numpy as np
import pytest

from runtime import elf, jit, machine_code, symbols

pytestmark = pytest.mark.skipif(not elf.SUPPORTED, reason="runtime.elf links for Linux on x86-64 alone")


@jit.entry(3)
def mixed(x, y, z):
    """Calls, constants of several sizes, a table of jumps, memory and a division that may raise."""
    total = np.float64(x) * 1.25 + np.float32(y) * np.float32(0.1)
    if z == 0:
        total += 3.5
    elif z == 1:
        total -= 7.25
    elif z == 2:
        total *= 0.3
    elif z == 3:
        total = np.sqrt(total * total)
    elif z == 4:
        total = np.cos(total)
    elif z == 5:
        total = -total
    return np.int64(total * 1000) // y


@pytest.fixture(scope="module")
def compiled() -> tuple[str, bytes]:
    library, name = mixed.compile()
    return name, library.serialize_using_object_code()[2][0]


def callable_at(address: int):
    return ctypes.CFUNCTYPE(*[ctypes.c_int64] * 4)(address)


def test_a_function_gives_what_it_gives_linked_by_llvm(compiled):
    name, data = compiled
    image = elf.Image(data, symbols.address)
    address, kept = machine_code.linked_by_llvm(name, data)
    got, ref = callable_at(image.address(name)), callable_at(address)
    rng = np.random.default_rng(0)
    for x, y, z in rng.integers([-(2**40), 1, -1], [2**40, 1000, 7], (500, 3)).tolist():
        assert got(x, y, z) == ref(x, y, z)
    assert kept is not None


def test_this_is_how_kernels_are_linked(compiled):
    address, kept = machine_code.linked(*compiled)
    assert isinstance(kept, elf.Image)
    assert address == kept.address(compiled[0])


def test_code_cannot_be_written(compiled):
    image = elf.Image(compiled[1], symbols.address)
    first = image.address(compiled[0])
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(word, 16) for word in line.split()[0].split("-"))
            if low <= first < high:
                assert line.split()[1] == "r-xp"
                return
    raise AssertionError("the code lies nowhere")


def test_an_unknown_name_or_kind_is_left_to_llvm(compiled, monkeypatch):
    name, data = compiled
    with pytest.raises(elf.UnknownObject, match="a name that nobody knows"):
        elf.Image(data, lambda name: None)
    with pytest.raises(elf.UnknownObject, match="no function of that name"):
        elf.Image(data, symbols.address).address(name + "x")
    monkeypatch.setattr(elf, "ABSOLUTE_64", 99)
    with pytest.raises(elf.UnknownObject, match="a relocation of another kind"):
        elf.Image(data, symbols.address)
    address, kept = machine_code.linked(name, data)
    assert not isinstance(kept, elf.Image)
    assert callable_at(address)(8, 2, 5) == -5100


def test_damage_is_found_before_anything_is_run(compiled):
    """Every field of the header and of the section headers set to what it cannot be; cut off at every place."""
    name, data = compiled
    first, _, _, _, _, size, count, _ = struct.unpack_from("<QIHHHHHH", data, 40)
    places = [*range(0, 64, 2), *(first + i * size + j for i in range(count) for j in range(4, size, 4))]
    damaged = [data[:at] + b"\xff" * 4 + data[at + 4 :] for at in places] + [
        data[:at] for at in range(0, len(data), 997)
    ]
    outcomes = set()
    for changed in damaged:
        try:
            outcomes.add(type(elf.Image(changed, symbols.address).address(name)))
        except elf.UnknownObject as error:
            outcomes.add(str(error))
    assert {"no 64-bit ELF file", "a file that is cut off", "a section that is cut off"} <= outcomes


def test_names_are_found_where_the_process_has_them():
    assert symbols.address("memset") and symbols.address("PyErr_Clear") and symbols.address("numba_gil_ensure")
    assert symbols.address("PyExc_SystemError") == id(SystemError)
    assert symbols.address("there_is_no_such_function") is None
    assert symbols.address("numba_nor_such_a_one") is None
