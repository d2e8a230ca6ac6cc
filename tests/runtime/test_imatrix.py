"""Importance matrices of small models: the runtime sums what the oracle's taps see, and the files are read back."""

import numpy as np
import pytest
from kernel_runner import assert_same_bits
from kernel_runner import run as run_kernel
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.errors import RangeError
from refquant.gguf import importance_file
from refquant.models.forward import Oracle
from refquant.text import Tokenizer
from runtime import imatrix, quantize
from runtime.activation_sums import collect
from runtime.kernels.square_sums import add_squares, add_squares_numpy

TEXT = "the file and that option with this command from the path have output print " * 12


@pytest.mark.parametrize("tokens, width, threads", [(1, 16, 1), (7, 96, 2), (40, 64, 3)])
def test_squares_are_added_in_the_order_of_the_tokens(tokens, width, threads):
    rng = np.random.default_rng([tokens, width])
    x, sums = rng.standard_normal((tokens, width), dtype=np.float32), rng.random(width, dtype=np.float32)
    ref, got = add_squares_numpy(x, sums), sums.copy()
    run_kernel(add_squares, [x, got], [width], width // 16, tokens=tokens, threads=threads)
    assert_same_bits(got, ref)


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
def test_the_runtime_sums_what_the_taps_of_the_oracle_see(tmp_path, arch):
    path = write_tiny_model(tmp_path / "m.gguf", arch=arch)
    got = collect(path, TEXT, ctx=32, chunks=3, threads=2)
    ref = collect(path, TEXT, ctx=32, chunks=3, exact=True)
    assert got.entries.keys() == ref.entries.keys()
    assert len(got.entries) == 14  # seven matrices of two layers, no output, no embedding
    for name, entry in ref.entries.items():
        assert got.entries[name].counts.tolist() == entry.counts.tolist() == [96]
        np.testing.assert_allclose(got.entries[name].sums, entry.sums, rtol=2e-3, atol=1e-5 * entry.sums.max())


def test_chunks_begin_with_bos_and_an_empty_cache(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf")
    got = collect(path, TEXT, ctx=32, chunks=2, exact=True).entries["blk.1.ffn_down.weight"].sums
    ref = np.zeros_like(got)
    with gguf.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
        assert tokenizer.add_bos
        ids = tokenizer.encode(TEXT)

        def tap(name, x):
            if name == "blk.1.ffn_down.weight":
                ref[:] = add_squares_numpy(x, ref[0])

        for i in range(2):
            Oracle(file, kv_dtype=np.float16).logits([tokenizer.bos, *ids[32 * i + 1 : 32 * i + 32]], tap=tap)
    np.testing.assert_allclose(got, ref, rtol=1e-5)


def test_experts_have_a_row_and_a_count_each(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", arch="qwen3moe", experts=4, experts_used=2)
    got = collect(path, TEXT, ctx=32, chunks=2)
    entry = got.entries["blk.0.ffn_up_exps.weight"]
    assert entry.sums.shape == (4, 64)
    assert entry.counts.sum() == 2 * 64  # each token chooses two
    assert got.entries["blk.0.attn_q.weight"].counts.tolist() == [64]


def test_the_command_writes_both_layouts_and_quantize_reads_them(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", n_embd=256, n_ff=256)
    (tmp_path / "t.txt").write_text(TEXT)
    common = [str(path), "-f", str(tmp_path / "t.txt"), "--ctx", "32", "--chunks", "2", "-q", "-o"]
    assert imatrix.main([*common, str(tmp_path / "i.gguf")]) == 0
    assert imatrix.main([*common, str(tmp_path / "i.dat"), "--output-format", "dat"]) == 0
    new, old = (importance_file.read(tmp_path / name) for name in ("i.gguf", "i.dat"))
    assert (new.chunk_count, new.chunk_size, new.datasets) == (2, 32, (str(tmp_path / "t.txt"),))
    assert old.chunk_count == 2
    for name, values in new.weights().items():
        np.testing.assert_allclose(old.weights()[name], values, rtol=1e-6)
    out = str(tmp_path / "out.gguf")
    assert quantize.main([str(path), out, "Q2_K_S", "--imatrix", str(tmp_path / "i.gguf"), "-q"]) == 0
    with gguf.open(out) as file:
        assert file.metadata["quantize.imatrix.entries_count"] == 14


@pytest.mark.parametrize("text, ctx, message", [
    ("too short", 32, "tokens of the text = .*, expected at least 64, two chunks"),
    (TEXT, 4, "ctx = 4, expected 16 to 256, the trained context"),
    (TEXT, 512, "ctx = 512"),
])  # fmt: skip
def test_texts_and_contexts_that_do_not_fit_are_refused(tmp_path, text, ctx, message):
    with pytest.raises(RangeError, match=message):
        collect(write_tiny_model(tmp_path / "m.gguf"), text, ctx=ctx)


def test_a_refusal_is_one_line(tmp_path, capsys):
    (tmp_path / "t.txt").write_bytes(b"\xff")
    path = write_tiny_model(tmp_path / "m.gguf")
    assert imatrix.main([str(path), "-f", str(tmp_path / "t.txt"), "-o", str(tmp_path / "i.gguf")]) == 2
    assert "byte 0 is no UTF-8, expected a text" in capsys.readouterr().err
    assert not (tmp_path / "i.gguf").exists()
