"""The tables of the I-quants against those of the gguf package."""

import gguf
import numpy as np
import pytest

from refquant.gguf import i_quants
from refquant.gguf.i_grids import GRIDS


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_those_of_gguf_py(name):
    theirs = getattr(gguf.quants, name)
    theirs.init_grid()
    got = i_quants.grid(name)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, theirs.grid.reshape(theirs.grid_shape))


def test_the_grid_of_iq1_m_is_that_of_iq1_s():
    assert gguf.quants.IQ1_M.grid_hex == gguf.quants.IQ1_S.grid_hex


def test_a_grid_is_decoded_once_and_cannot_be_changed():
    assert i_quants.grid("IQ2_XS") is i_quants.grid("IQ2_XS")
    with pytest.raises(ValueError, match="read-only"):
        i_quants.grid("IQ2_XS")[0, 0] = 1


def test_seven_stored_signs_are_completed_to_an_even_number_of_minuses():
    bits = np.unpackbits(np.frombuffer(gguf.quants.IQ2_XXS.ksigns, np.uint8)[:, None], axis=1, bitorder="little")
    np.testing.assert_array_equal(i_quants.EVEN_SIGNS, 1 - 2 * bits.astype(np.float32))
    assert ((i_quants.EVEN_SIGNS < 0).sum(axis=1) % 2 == 0).all()


def test_the_levels_of_iq4_are_those_of_gguf_py():
    np.testing.assert_array_equal(i_quants.LEVELS, np.array(gguf.quants.IQ4_NL.kvalues, np.float32))
