"""The tabled Hadamard matrices of compressed-tensors: those of Sloane, which the rules give again."""

from pathlib import Path

import numpy as np
import pytest

from refquant import hadamard
from refquant.layouts import safetensors_file

pytestmark = pytest.mark.filterwarnings("ignore")
EQUAL = [12, 28, 36, 40, 52, 60, 108, 140, 156, 172]


@pytest.fixture(scope="module")
def tables(peer) -> dict[int, np.ndarray]:
    folder = Path(peer("compressed_tensors").__file__).parent
    file = safetensors_file.read(folder / "transform" / "utils" / "hadamards.safetensors")
    return {int(name): np.array(tensor.data).astype(np.int64) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("n", EQUAL)
def test_the_matrix_is_the_tabled_one(tables, n):
    np.testing.assert_array_equal(hadamard.matrix(n), tables[n])


@pytest.mark.parametrize("n", [20, 24, 48, 104])
def test_these_are_other_matrices_of_the_same_order(tables, n):
    np.testing.assert_array_equal(tables[n] @ tables[n].T, n * np.eye(n))
    assert (hadamard.matrix(n) != tables[n]).any()
