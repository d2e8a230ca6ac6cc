"""The table of methods against packages: its page is of today's list, and its rows can be wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import method_peers

PAGE = Path(__file__).resolve().parents[1] / "docs" / "method-peers.md"


def test_the_page_has_a_row_for_every_pair():
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    listed = [(row[0].removeprefix("| "), row[1], row[2]) for row in rows]
    names = method_peers.PACKAGES
    assert listed == [(names[pair.package], pair.method, pair.settings) for pair in method_peers.pairs()]
    assert all(0.99 < float(row[5]) < 1.01 for row in rows)
    assert all(int(row[4].split()[0]) <= 0.02 * int(row[3]) for row in rows)
    assert all((row[4] == "0") == (row[6] == " |" or row[6] == "|") for row in rows)


def test_packages_that_are_missing_are_named():
    text = method_peers.table([], list(method_peers.PACKAGES), (8, 64, 16))
    assert "Not installed: gptqmodel." in text
    assert "Layer: 8 x 64 weights, 16 inputs" in text


def test_a_pair_that_differs_is_counted():
    W, X = method_peers.layer(8, 64, 50)
    pair = method_peers.Pair("hqq", "HQQ", "none", lambda W, X: W * 0, lambda W, X: np.where(W > 0, W, 0))
    found = method_peers.compare(pair, W, X)
    assert (found.codes, found.differing) == (512, int((W > 0).sum()))
    assert found.ratio < 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", method_peers.PACKAGES)
def test_the_rows_of_an_installed_package_hold_on_a_small_layer(peer, package):
    peer(package)
    W, X = method_peers.layer(64, 256, 300)
    for pair in method_peers.pairs():
        if pair.package == package:
            found = method_peers.compare(pair, W, X)
            assert found.differing <= 0.02 * found.codes, pair.settings
            assert found.ratio == pytest.approx(1, abs=0.02), pair.settings
            wrong = dataclasses.replace(pair, own=lambda W, X: W)
            assert method_peers.compare(wrong, W, X).differing > 0.3 * W.size
