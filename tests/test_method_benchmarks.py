"""The benchmarks of GPTQ and AWQ on a small layer: what they print, and that they time the search itself."""

import numpy as np
import pytest

from benchmarks import awq as awq_benchmark
from benchmarks import gptq as gptq_benchmark
from refquant import awq


def our_row(printed: str) -> list[str]:
    return next(line for line in printed.splitlines() if line.startswith("refquant")).split()


def test_gptq_is_timed_and_its_error_printed(capsys):
    gptq_benchmark.main(["--size", "128", "--tokens", "200", "--rounds", "1", "--peers", ""])
    printed = capsys.readouterr().out
    assert "GPTQ 128 x 128, int4 g128, 200 tokens, best of 1" in printed
    assert 0 < float(our_row(printed)[-1]) < 0.05


def test_awq_is_timed_without_its_peer(capsys):
    awq_benchmark.main(["--size", "128", "--tokens", "40", "--rounds", "1", "--no-peer"])
    printed = capsys.readouterr().out
    assert "AWQ of one block, 128 wide, 4 bits g128, 40 tokens, best of 1" in printed
    assert "autoawq: not compared" in printed
    assert float(our_row(printed)[2]) == 1


def test_the_scales_of_the_block_are_those_of_the_search():
    W, X = awq_benchmark.block(128, 40)
    scale, clip, found = awq_benchmark.ours(W, X, "")
    assert scale > 0 and clip < scale
    assert found.keys() == set(W)
    ref = awq.search_scale([W["down"]], X["down"], awq_benchmark.SCHEME, "autoawq").scale
    np.testing.assert_array_equal(found["down"], ref)
    assert found["q"] is found["v"] and (found["q"] != found["o"]).any()


@pytest.mark.filterwarnings("ignore")
def test_autoawq_finds_the_same_scales(peer):
    peer("awq")
    W, X = awq_benchmark.block(128, 40)
    ours, theirs = (run(W, X, "down")[2] for run in (awq_benchmark.ours, awq_benchmark.auto_awq))
    for name, s in ours.items():
        np.testing.assert_allclose(theirs[name], s, rtol=2e-5)
