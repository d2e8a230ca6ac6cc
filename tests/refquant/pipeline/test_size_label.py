"""Sizes as gguf-py writes them, and as known models have them."""

import pytest

from refquant.pipeline.size_label import size_label


@pytest.mark.parametrize(
    "count, label",
    [(8_030_261_312, "8.0B"), (494_032_768, "494M"), (33_689_088, "34M"), (104_896, "105K"), (1, "0.00K")],
)
def test_sizes_have_two_digits_or_more(count, label):
    assert size_label({"token_embd.weight": (count,)}) == label


def test_experts_count_once_beside_how_many_they_are():
    shapes = {"blk.0.ffn_up_exps.weight": (8, 14336, 4096), "token_embd.weight": (10**6,)}
    assert size_label(shapes) == "8x60M"


@pytest.mark.parametrize("count", [7, 999, 1234, 10**6, 10**6 + 1, 9_400_000, 10_600_000, 7_615_616_512, 2 * 10**12])
def test_labels_are_those_of_gguf_py(peer, count):
    ref = peer("gguf").size_label(count, count, 0, 0)
    assert size_label({"output.weight": (1, count)}) == ref
