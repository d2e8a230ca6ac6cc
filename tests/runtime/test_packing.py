"""Packing equals its twin for every type, on any number of threads, and moves no byte out of place at the edges."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.arena import ALIGNMENT, Arena
from runtime.kernels import PRODUCTS
from runtime.kernels.pack import interleave_numpy
from runtime.overruns import overruns
from runtime.packing import Packing, pack
from runtime.workers import Crew


@pytest.fixture(scope="module")
def crew():
    crew = Crew(2)
    yield crew
    crew.close()


def block_bytes(name: str) -> int:
    """What is interleaved together: a block of the type, or two numbers of BF16."""
    return sum(size * times for size, times in PRODUCTS[name].fields)


def random_rows(name: str, rows: int, blocks: int) -> np.ndarray:
    rng = np.random.default_rng([rows, blocks])
    return rng.integers(0, 256, (rows, blocks * block_bytes(name)), np.uint8)


def twin(name: str, w: np.ndarray) -> np.ndarray:
    return interleave_numpy(w, block_bytes(name), PRODUCTS[name].fields)


@pytest.mark.parametrize("rows, blocks", [(1, 1), (31, 2), (32, 3), (33, 5), (96, 1)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_packing_equals_its_twin(crew, name, rows, blocks):
    w = random_rows(name, rows, blocks)
    np.testing.assert_array_equal(pack(w, name, crew), twin(name, w))
    assert overruns.value == 0  # counted when REFQUANT_CHECKED is set


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_matrices_are_packed_in_one_go_and_reported(threads, monkeypatch):
    monkeypatch.setattr("runtime.packing.LOOK", 1e-6)
    crew, seen = Crew(threads), []
    try:
        packing = Packing(crew, Arena())
        rows = [random_rows("Q4_0", 40 + i, 3) for i in range(40)]
        packed = [packing.add(w, "Q4_0", None if i == 7 else NotMapped()) for i, w in enumerate(rows)]
        np.testing.assert_array_equal(packed[7], twin("Q4_0", rows[7]))  # not a file's: at once
        assert not packed[8].any()
        packing.run(lambda *call: seen.append(call))
    finally:
        crew.close()
    for w, got in zip(rows, packed):
        np.testing.assert_array_equal(got, twin("Q4_0", w))
    assert seen[-1] == ("load", 39, 39)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_large_matrix_is_packed_and_let_go_in_parts(monkeypatch, crew):
    monkeypatch.setattr("runtime.packing.RELEASE", 5 * PAGESIZE)
    memory = mmap(-1, 40 * PAGESIZE, MAP_PRIVATE | MAP_ANONYMOUS)
    w = np.frombuffer(memory, np.uint8)[100:].reshape(-1)[: 700 * 180].reshape(700, 180)
    w[:] = random_rows("Q4_0", 700, 10)
    expected, first = twin("Q4_0", w.copy()), np.frombuffer(memory, np.uint8).ctypes.data
    packing = Packing(crew, Arena())
    got = packing.add(w, "Q4_0", SimpleNamespace(pages=(first + PAGESIZE, 28 * PAGESIZE)))
    packing.run()
    np.testing.assert_array_equal(got, expected)
    kept = np.frombuffer(memory, np.uint8).reshape(-1, PAGESIZE).any(axis=1)  # pages let go come back as zeros
    assert kept[0] and kept[29:31].all()
    assert kept[1:29].sum() <= 7  # where two parts meet


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_beside_the_packing_ends_it_and_leaves_the_threads_free(threads):
    crew, whole = Crew(threads), random_rows("Q8_0", 1024, 256)
    try:
        packing = Packing(crew, Arena())
        packed = [packing.add(whole, "Q8_0", NotMapped()) for _ in range(40)]
        with pytest.raises(KeyboardInterrupt), packing.beside():
            while not packed[0].any():
                pass
            raise KeyboardInterrupt
        assert not packed[-1].any()
        small = random_rows("Q4_0", 40, 3)
        np.testing.assert_array_equal(pack(small, "Q4_0", crew), twin("Q4_0", small))
    finally:
        crew.close()


class NotMapped:
    """Stands for a tensor that has no whole page."""

    pages = (0, 0)


@pytest.mark.parametrize("expected", [0, 1, 5 << 20, 600 << 20])
def test_memory_of_the_arena_is_zeros_that_nobody_else_has(expected):
    arena, taken = Arena(expected), []
    for size in (1, 63, 64, 65, 1 << 20, 300 << 20, 5):
        array = arena.take(size)
        assert array.nbytes == size
        assert array.ctypes.data % ALIGNMENT == 0
        assert not array[:1000].any()
        array[:1000] = array[-1000:] = len(taken) + 1
        taken.append(array)
    for i, array in enumerate(taken):
        assert (array[:1000] == i + 1).all()
