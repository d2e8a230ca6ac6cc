"""Every SIMD tier that this CPU can run gives the same bits, and uses the registers it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.simd import tier

ROOT = Path(__file__).parents[2]
POSSIBLE = [name for name, needs in tier.NEEDS.items() if set(needs) <= tier.features()]

# The digest of logits of a small model with every type of product, for a prompt and token by token.
DIGEST = """
import hashlib, sys
import numpy as np
sys.path.insert(0, "tests")
from tiny_models import write_tiny_model
from runtime import Model, Session
digest = hashlib.sha256()
ids = np.random.default_rng(0).integers(0, 260, 20)
for types in ("Q8_0", "Q4_0", "Q4_K", "F16"):
    path = write_tiny_model(sys.argv[1], arch="qwen3", types=types, n_embd=256, n_ff=256)
    with Model.load(path) as model:
        digest.update(model.logits(ids).tobytes())
        session = Session(model)
        for token in ids[:5]:
            digest.update(session.read_all([token]).tobytes())
from runtime.kernels import q4_0
print(digest.hexdigest(), "zmm" in q4_0.matvec.compile()[0].get_asm_str() if tier_is_x86 else False)
"""


def digest(path: Path, name: str, **variables: str) -> list[str]:
    code = f"tier_is_x86 = {name in ('avx512-vnni', 'avx-vnni', 'avx2')}\n" + DIGEST
    environment = os.environ | {"REFQUANT_SIMD": name} | variables
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_tiers_agree_in_every_bit(tmp_path):
    found = {name: digest(tmp_path / "m.gguf", name) for name in POSSIBLE}
    assert len({bits for bits, _ in found.values()}) == 1, found
    assert "portable" in found
    assert found.get("avx512-vnni", ["", "True"])[1] == "True"  # what the next test must not find is there to be found


@pytest.mark.skipif("avx2" not in POSSIBLE, reason="the CPU has no AVX2")
def test_the_avx2_tier_runs_on_a_cpu_without_avx512(tmp_path):
    reference = digest(tmp_path / "m.gguf", "portable")[0]
    assert digest(tmp_path / "m.gguf", "avx2") == [reference, "False"]


def test_an_impossible_tier_is_refused():
    code = "import runtime.simd.tier"
    environment = os.environ | {"REFQUANT_SIMD": "avx1024"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "REFQUANT_SIMD = 'avx1024', expected one that this CPU can run: " in done.stderr
