"""The measured read."""

import numpy as np
import pytest

from refquant.errors import RangeError
from runtime.bandwidth import _sum, read_bandwidth


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_read_has_a_plausible_rate(threads):
    assert 1e8 < read_bandwidth(1 << 22, threads, repeats=2) < 1e14


def test_every_word_is_read():
    words = np.random.default_rng(0).integers(0, 2**32, 1001, np.uint64)
    assert _sum(words) == words.sum()


@pytest.mark.parametrize("arguments", [(7, 1), (1 << 20, 0), (15, 2), (1 << 20, 1, 0)])
def test_reads_of_nothing_are_refused(arguments):
    with pytest.raises(RangeError, match="nbytes"):
        read_bandwidth(*arguments)
