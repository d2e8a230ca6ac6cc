"""The kernel cache: keyed by sources, versions and CPU; usable where the package itself is read-only."""

import os
import subprocess
import sys
from pathlib import Path

from runtime import jit

ROOT = Path(__file__).parents[2]


def test_the_cache_key_is_stable_and_changes_with_the_environment(monkeypatch):
    key = jit.cache_key()
    assert key == jit.cache_key()
    assert len(key) == 16
    monkeypatch.setattr(jit.config, "CPU_NAME", "another-cpu")
    assert jit.cache_key() != key
    monkeypatch.undo()
    monkeypatch.setattr(jit.numba, "__version__", "0.0")
    assert jit.cache_key() != key


def test_the_cache_key_changes_with_any_source_file(tmp_path):
    copy = tmp_path / "runtime"
    (copy / "kernels").mkdir(parents=True)
    for file in ("jit.py", "kernels/half.py"):
        (copy / file).write_bytes((ROOT / "runtime" / file).read_bytes())
    (copy / "__init__.py").touch()

    def key() -> str:
        code = "import runtime.jit; print(runtime.jit.cache_key())"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    before = key()
    (copy / "kernels/half.py").write_text("# another kernel\n")
    assert key() != before


def test_compiled_kernels_land_in_the_chosen_directory_and_are_read_back(tmp_path):
    code = (
        "import numpy as np\n"
        "from runtime.kernels.half import widen\n"
        "assert widen(np.uint16(0x3C00)) == 1\n"
        "print(sum(widen.stats.cache_hits.values()), sum(widen.stats.cache_misses.values()))\n"
    )
    environment = os.environ | {"REFQUANT_CACHE": str(tmp_path)}

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "0 1"
    assert list(tmp_path.glob("kernels-*/**/*.nbi"))
    assert run() == "1 0"


def test_other_users_of_numba_keep_their_cache_directory():
    import numba

    before = numba.config.CACHE_DIR
    jit.kernel(lambda x: x)
    assert before == numba.config.CACHE_DIR
