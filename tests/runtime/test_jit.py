"""The kernel cache: keyed by sources, versions and CPU; usable where the package itself is read-only."""

import os
import subprocess
import sys
from pathlib import Path

from runtime import elf, jit
from runtime.kernels.swiglu import encode
from runtime.simd import tier

ROOT = Path(__file__).parents[2]
SOURCES = [f"{name}.py" for name in ("jit", "machine_code", "elf", "symbols", "overruns", "promise", "processor")]
SOURCES += ["kernels/q8_0.py", "simd/__init__.py", "simd/tier.py"]


def test_the_cache_key_is_stable_and_changes_with_the_environment(monkeypatch):
    key = jit.cache_key()
    assert key == jit.cache_key()
    assert len(key) == 16
    monkeypatch.setattr(jit, "target", lambda tier: ("another-cpu", None))
    assert jit.cache_key() != key
    monkeypatch.undo()
    monkeypatch.setattr(jit, "version", lambda package: "0.0")
    assert jit.cache_key() != key
    monkeypatch.undo()
    monkeypatch.setattr(jit, "cpu", lambda: "another CPU")
    assert jit.cache_key() != key


def test_the_cache_key_changes_with_any_source_file(tmp_path):
    copy = tmp_path / "runtime"
    (copy / "kernels").mkdir(parents=True)
    (copy / "simd").mkdir()
    for file in SOURCES:
        (copy / file).write_bytes((ROOT / "runtime" / file).read_bytes())
    (copy / "__init__.py").touch()

    def key() -> str:
        code = "import runtime.jit; print(runtime.jit.cache_key())"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "REFQUANT_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    before = key()
    (copy / "kernels/q8_0.py").write_text("# another kernel\n")
    assert key() != before


def run(code: str, **variables: str) -> str:
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SWITCH = """
import sys
from runtime.jit import CACHE
from runtime.kernels.swiglu import encode
was_cached, compiled = encode.is_cached, []
encode.compile = lambda: compiled.append(1) or type(encode).compile(encode)
print(CACHE.name, was_cached, hex(encode.address)[:2], len(compiled), "numba" in sys.modules)
"""


def test_compiled_kernels_are_read_back_and_never_by_another_tier(tmp_path):
    best = next(name for name, needs in tier.NEEDS.items() if set(needs) <= tier.features())
    plain = {"REFQUANT_CACHE": str(tmp_path), "REFQUANT_SIMD": best, "REFQUANT_CHECKED": "0"}  # not as this process
    first = run(SWITCH, **plain).split()
    assert first[1:] == ["False", "0x", "1", "True"]
    assert run(SWITCH, **plain).split() == [first[0], "True", "0x", "0", str(not elf.SUPPORTED)]
    portable = run(SWITCH, **plain | {"REFQUANT_SIMD": "portable"}).split()
    assert portable[0] != first[0]
    assert portable[1:] == ["False", "0x", "1", "True"]
    checked = run(SWITCH, **plain | {"REFQUANT_CHECKED": "1"}).split()
    assert checked[0] not in (first[0], portable[0])
    assert checked[1:] == ["False", "0x", "1", "True"]
    (damaged,) = tmp_path.glob(f"{first[0]}/compiled/*encode")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert run(SWITCH, **plain).split() == [first[0], "True", "0x", "1", "True"]


def test_a_cache_that_cannot_be_written_gives_way_to_a_temporary_one(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    place = run("from runtime.jit import CACHE; print(CACHE)", REFQUANT_CACHE=str(blocked), TMPDIR=str(tmp_path))
    assert Path(place).is_relative_to(tmp_path / f"refquant-{os.getuid()}")


def test_other_users_of_numba_keep_their_cache_directory():
    import numba

    before = numba.config.CACHE_DIR
    _ = encode.address
    assert before == numba.config.CACHE_DIR


def test_two_processes_share_the_compiling(tmp_path):
    code = """
from runtime import compilation
from runtime.kernels import swiglu, norm
from runtime.kernels.pack import interleave
from runtime.step import follow
wanted, seen = [swiglu.swiglu, swiglu.encode, norm.add_norm, interleave, follow], []
compilation.prepare(wanted, lambda *call: seen.append(call))
assert seen[-1] == ("compile", 5, 5) and [call[1] for call in seen] == sorted(call[1] for call in seen)
print(all("code" in vars(function) for function in wanted))
"""
    assert run(code, REFQUANT_CACHE=str(tmp_path)) == "True"
    assert len(list(tmp_path.glob("kernels-*/compiled/*"))) == 5


def test_functions_of_a_factory_have_names_of_their_own():
    def factory(step: int):
        @jit.inlined
        def add(x):
            return x + step

        return add

    first, second = factory(1), factory(2)
    assert first.made.py_func.__qualname__ != second.made.py_func.__qualname__


def test_code_from_several_processes_does_not_mix(tmp_path):
    """Each process starts its count of functions anew: two compile one kernel each, a third runs both."""
    for name in ("attend_cuts_f32", "attend_cuts_f16"):
        code = f"from runtime.kernels import attention; attention.{name}.address"
        run(code, REFQUANT_CACHE=str(tmp_path))
    tests = Path(__file__).with_name("test_attention.py")
    command = [sys.executable, "-m", "pytest", "-q", str(tests), "-k", "0-1 or 700-1", "-p", "no:cacheprovider"]
    environment = os.environ | {"REFQUANT_CACHE": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
