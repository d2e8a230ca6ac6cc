"""A start with all kernels compiled reads them and imports no compiler. (What an empty cache does: test_jit.)"""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny_model

from runtime import elf

ROOT = Path(__file__).parents[2]
START = """
import sys
from runtime import Model
with Model.load(sys.argv[1], threads=2) as model:
    ids = list(model.generate([1, 2, 3], 4, temperature=0, stop_at_eog=False))
print(ids, [name for name in ("numba", "llvmlite") if name in sys.modules])
"""


def start(model: Path) -> str:
    command = [sys.executable, "-c", START, str(model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not elf.SUPPORTED, reason="elsewhere kernels are linked by llvmlite")
@pytest.mark.timeout(600)
def test_a_start_with_compiled_kernels_imports_no_compiler_and_says_the_same(tmp_path):
    model = write_tiny_model(tmp_path / "m.gguf", types="Q8_0")
    first = start(model)  # compiles what no test before it has needed
    again = start(model)
    assert again.endswith("[]\n")
    assert again.partition("]")[0] == first.partition("]")[0]
