"""What each method promises about its bytes: the same layer in processes with other BLAS kernels and threads."""

import os
import subprocess
import sys
from pathlib import Path

import method_codes
import numpy as np
import pytest

from refquant import methods

CORES = {
    "Prescott": "",
    "Haswell": "avx2",
    "Zen": "avx2",
    "SkylakeX": "avx512bw",
}  # OpenBLAS kernels, and what they need
TOLERATED = {"codes": 2e-3, "error": 5e-3}


def settings() -> list[dict[str, str]]:
    """Environments of the processes, the first to compare with. Where there is no such kernel, threads remain."""
    cpu, blas = Path("/proc/cpuinfo"), np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    flags = set(cpu.read_text().split()) if cpu.exists() and "openblas" in blas else set()
    kernels = [core for core, flag in CORES.items() if "sse2" in flags and (not flag or flag in flags)]
    threads = [{"OPENBLAS_NUM_THREADS": count} for count in ("1", "2")]
    return threads + [{"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": core} for core in kernels]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[dict[str, np.ndarray]]:
    folder, found = tmp_path_factory.mktemp("codes"), []
    for number, changed in enumerate(settings()):
        target = folder / f"{number}.npz"
        command = [sys.executable, method_codes.__file__, str(target)]
        subprocess.run(command, env={**os.environ, **changed}, check=True, timeout=60)
        with np.load(target) as file:
            found.append(dict(file))
    return found


def parts(run: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.partition(" ")[2]: a for key, a in run.items() if key.partition(" ")[0] == name}


def test_every_method_says_what_it_promises():
    assert methods.DETERMINISM.keys() == methods.METHODS.keys()
    assert set(methods.DETERMINISM.values()) == {"exact", "option", "no BLAS", "fast"}
    for name, promise in methods.DETERMINISM.items():
        assert methods.takes(methods.METHODS[name], "precision") == (promise == "option"), name


PROMISED = [f"{name}!exact" if p == "option" else name for name, p in methods.DETERMINISM.items() if p != "fast"]
OTHERS = [
    f"{name}!fast" if p == "option" else name for name, p in methods.DETERMINISM.items() if p in ("option", "fast")
]


@pytest.mark.parametrize("name", PROMISED)
def test_the_bytes_do_not_depend_on_the_blas_or_its_threads(runs, name):
    ref = parts(runs[0], name)
    assert {"codes", "scale"} <= ref.keys()
    for run in runs[1:]:
        for part, got in parts(run, name).items():
            assert part == "error" or got.tobytes() == ref[part].tobytes(), part


@pytest.mark.parametrize("name", OTHERS)
def test_fast_methods_stay_within_the_stated_tolerance(runs, name):
    ref = parts(runs[0], name)
    for run in runs[1:]:
        got = parts(run, name)
        assert np.mean(got["codes"] != ref["codes"]) <= TOLERATED["codes"]
        assert got["error"] == pytest.approx(ref["error"], rel=TOLERATED["error"])


def test_the_comparison_would_see_a_difference(runs):
    """Some fast method has other bytes somewhere: scales, which BLAS's sums reach, are not rounded away."""
    differ = [name for name in OTHERS for run in runs[1:] for part, a in parts(run, name).items()
              if part != "error" and a.tobytes() != parts(runs[0], name)[part].tobytes()]  # fmt: skip
    assert differ or len(runs) == 2
