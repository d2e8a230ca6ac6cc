"""The estimate against sums done by hand, and the free memory against made-up machines."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from refquant import memory
from refquant.errors import GGUFError, RangeError
from refquant.gguf import FORMATS

MIB = 1 << 20


def tensor(shape, type_name, nbytes):
    return SimpleNamespace(shape=shape, type=type_name, nbytes=nbytes)


def gguf(**changes):
    """Sizes that can be done in the head: 2 layers of width 64, 4 heads of 16, 2 KV heads, vocabulary 100."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.context_length": 1000,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    tensors = {
        "token_embd.weight": tensor((100, 64), "Q8_0", 6800),
        "blk.0.ffn_up.weight": tensor((128, 64), "Q5_0", 5632),
        "output_norm.weight": tensor((64,), "F32", 256),
    }
    return SimpleNamespace(
        path=Path("made-up.gguf"), metadata=metadata | changes, tensors=tensors, types={}, offsets={}
    )


def test_the_estimate_is_the_sum_of_the_formulas():
    got = memory.to_run(gguf(), 1000, "f16", batch=10)
    assert got.cache == 1000 * 2 * 2 * (16 + 16) * 2
    assert got.weights == 6800 + 5632 + 256
    activations = 2 * 64 + 2 * 64 + 32 + 32 + 64 + 2 * 128 + 128
    assert got.scratch == 4 * 10 * activations + 3 * 10 * 128 + 128 * (100 + 64) + 4 * 1000 * 16
    assert got.program == 44 * MIB + 120 * 100
    assert got.total == got.weights + got.cache + got.scratch + got.program


def test_the_cache_grows_with_context_and_type():
    small, large = memory.to_run(gguf(), 100), memory.to_run(gguf(), 200)
    assert large.cache == 2 * small.cache
    assert memory.to_run(gguf(), 100, "f32").cache == 2 * small.cache
    assert memory.to_run(gguf(), 100, "q8_0").cache == 100 * 2 * 2 * (34 + 34)  # heads of 16: a block each
    longer = memory.to_run(gguf(**{"llama.attention.key_length": 96, "llama.rope.dimension_count": 96}), 100, "q8_0")
    assert longer.cache == 100 * 2 * 2 * (3 * 34 + 34)
    assert memory.to_run(gguf()).n_ctx == 1000


def test_experts_count_with_all_their_bytes_and_with_the_rows_of_a_batch():
    plain, experts = gguf(), gguf(**{"llama.expert_count": 8, "llama.expert_used_count": 3})
    experts.tensors["blk.0.ffn_up_exps.weight"] = tensor((8, 128, 64), "Q5_0", 45056)
    ref, got = (memory.to_run(file, 1000, batch=10) for file in (plain, experts))
    assert got.weights == ref.weights + 45056
    widest_before, widest = 128, 64  # n_ff is that of an expert, and no token passes through all of it
    without = ref.scratch - 4 * 10 * (2 * 128 + widest_before - widest) - 3 * 10 * (widest_before - widest)
    assert got.scratch == without + 10 * 3 * (4 * (2 * 64 + 3 * 128) + 3 * 128)
    slow = memory.to_run(experts, 1000, batch=10, kernels=["Q8_0"])
    assert slow.weights == got.weights + 4 * (128 * 64 + 8 * 128 * 64)


def test_a_matrix_without_kernel_counts_as_float32_besides_its_bytes():
    every, some = memory.to_run(gguf()), memory.to_run(gguf(), kernels={"Q8_0", "F32"})
    assert some.weights - every.weights == 128 * 64 * 4


def test_an_embedding_without_kernel_is_decoded_only_where_it_is_the_output_too():
    tied, untied = gguf(), gguf()
    untied.tensors["output.weight"] = tensor((100, 64), "F16", 12800)
    kernels = set(FORMATS) - {"Q8_0"}
    assert memory.to_run(tied, kernels=kernels).weights - memory.to_run(tied).weights == 100 * 64 * 4
    assert memory.to_run(untied, kernels=kernels).weights == memory.to_run(untied).weights


def test_values_of_other_width_than_keys_count():
    wide = gguf(**{"llama.attention.key_length": 16, "llama.attention.value_length": 48})
    assert memory.to_run(wide, 1).cache == 2 * 2 * (16 + 48) * 2


@pytest.mark.parametrize("spare", [0, 1, 319, 320, 10**9])
def test_the_largest_context_that_fits_fits_and_one_more_does_not(spare):
    free = memory.to_run(gguf(), 1).total + spare
    fits = memory.to_run(gguf(), 77).context_for(free)
    assert memory.to_run(gguf(), fits).total <= free < memory.to_run(gguf(), fits + 1).total


def test_no_context_fits_where_the_weights_do_not():
    assert memory.to_run(gguf()).context_for(1000) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_ctx": 0}, r"n_ctx = 0, expected 1\.\.2147483647"),
        ({"n_ctx": 1 << 31}, "n_ctx = 2147483648"),
        ({"batch": 0}, "batch = 0"),
        ({"kv_dtype": "q4_0"}, "kv_dtype = 'q4_0', expected one of f16, f32, q8_0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(RangeError, match=message):
        memory.to_run(gguf(), **arguments)


def test_a_header_that_describes_no_model_is_refused():
    with pytest.raises(GGUFError, match="head_count"):
        memory.to_run(gguf(**{"llama.attention.head_count": 0}))


def test_the_sentence_shows_the_formula():
    assert str(memory.Memory(3 * MIB, 2 * MIB, MIB, 150 * MIB, 2112, 1024, "f16")) == (
        "156 MiB = weights 3.00 MiB + KV cache 2.00 MiB (1024 tokens, f16) + scratch 1.00 MiB + program 150 MiB"
    )


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (17_832_000, "17.0 MiB"),
        (1023 * MIB, "1.00 GiB"),
        (999 * MIB, "999 MiB"),
        (8 << 30, "8.00 GiB"),
        (5 << 40, "5.00 TiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_bytes_are_told_in_three_digits(count, text):
    assert memory.human(count) == text


def machine(root, free_kib, cgroup="", files=()):
    files = {
        "proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable:  {free_kib} kB\n",
        "proc/self/cgroup": cgroup,
        **dict(files),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_memory_is_what_the_system_says(tmp_path):
    assert memory.available(machine(tmp_path, 1000)) == 1000 * 1024


def test_a_container_limit_of_version_2_counts_with_its_droppable_cache(tmp_path):
    folder = "sys/fs/cgroup/a/b/"
    files = {
        folder + "memory.max": "max\n",
        folder + "memory.current": "5\n",
        folder + "memory.stat": "",
        "sys/fs/cgroup/a/memory.max": f"{100 * MIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{90 * MIB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {30 * MIB}\n",
    }
    assert memory.available(machine(tmp_path, 10**6, "0::/a/b\n", files)) == 40 * MIB


def test_a_container_limit_of_version_1_counts_wherever_it_is_mounted(tmp_path):
    folder = "sys/fs/cgroup/memory/"  # the process's own path is not visible in the container, its root is
    files = {
        folder + "memory.limit_in_bytes": f"{100 * MIB}",
        folder + "memory.usage_in_bytes": f"{120 * MIB}",
        folder + "memory.stat": "total_inactive_file 0\n",
    }
    assert memory.available(machine(tmp_path, 10**6, "7:cpu,memory:/outside/x\n3:cpuset:/\n", files)) == 0


def test_a_limit_larger_than_the_machine_is_no_room(tmp_path):
    folder = "sys/fs/cgroup/memory/"
    files = {
        folder + "memory.limit_in_bytes": "9223372036854771712",
        folder + "memory.usage_in_bytes": "1",
        folder + "memory.stat": "total_inactive_file 0\n",
    }
    assert memory.available(machine(tmp_path, 10**6, "4:memory:/\n", files)) == 10**6 * 1024


def test_a_system_that_says_nothing_is_unknown(tmp_path):
    assert memory.available(tmp_path) is None


def test_this_machine_has_some_memory():
    if hasattr(os, "sysconf"):
        assert memory.available() > MIB


def test_the_bundled_numbers_of_a_real_file(shared):
    from refquant.gguf import open as open_gguf

    path = shared("models/tiny-qwen2-Q4_K_M.gguf")
    with open_gguf(path) as file:
        got = memory.to_run(file, 1024)
        assert got.weights == sum(t.data.nbytes for t in file.tensors.values())
    assert got.cache == 8 * 2 * 64 * 2 * 1024 * np.dtype(np.float16).itemsize
    assert 0.98 * path.stat().st_size < got.weights < path.stat().st_size
