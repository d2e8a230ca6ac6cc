"""The estimate of memory against what a process takes that loads a random model and reads a full context."""

import subprocess
import sys

import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant.pipeline import convert_to_gguf

CODE = """
import re, sys
from refquant import gguf, memory
from runtime import Model, Session
n_ctx = int(sys.argv[2])
with gguf.open(sys.argv[1]) as file:
    estimate = memory.to_run(file, n_ctx).total
with Model.load(sys.argv[1], n_ctx=n_ctx, threads=1) as model:
    Session(model).prefill([1 + i % 50 for i in range(n_ctx - 1)])
    resident = re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())
    print(estimate, 1024 * int(resident[1]))
"""


def taken(path, n_ctx: int) -> tuple[int, int]:
    """(estimate, resident bytes after a full context)."""
    command = [sys.executable, "-c", CODE, str(path), str(n_ctx)]
    got = subprocess.run(command, capture_output=True, text=True, check=True)
    estimate, resident = map(int, got.stdout.split())
    return estimate, resident


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.timeout(600)
def test_the_estimate_is_within_a_tenth_of_what_a_small_and_a_larger_model_take(tmp_path):
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 12, "num_key_value_heads": 12}
    large = write_tiny_checkpoint(tmp_path / "l", n_embd=768, n_ff=3072, max_position_embeddings=2048, **sizes)
    small = write_tiny_checkpoint(tmp_path / "s", max_position_embeddings=2048)
    for folder in (large, small):
        convert_to_gguf(folder, f"{folder}.gguf", "Q8_0")
    assert 30e6 < (tmp_path / "l.gguf").stat().st_size < 80e6
    taken(f"{small}.gguf", 64)  # compiles what is not cached yet, which takes memory of its own
    for path, n_ctx in ((f"{small}.gguf", 64), (f"{large}.gguf", 1024)):
        estimate, resident = taken(path, n_ctx)
        assert estimate == pytest.approx(resident, rel=0.1)
