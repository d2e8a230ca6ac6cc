"""The step function: every unit runs once, on any number of threads; threads come and go; kernels never leave their
buffers."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.jit import kernel
from runtime.program import Program
from runtime.simd import memory
from runtime.simd.memory import buffer, integer, load_i32, store_i32
from runtime.workers import Crew

ROOT = Path(memory.__file__).parents[2]


@kernel
def count_units(args, tokens, start, thread, lo, hi):
    """out[unit] = in[unit] * 3 + add."""
    source, out, add = buffer(args, 0), buffer(args, 1), integer(args, 32)
    for unit in range(lo, hi):
        store_i32(out, unit * 4, np.int32(load_i32(source, unit * 4) * 3 + add))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_rows_run_in_order_and_every_unit_once(threads):
    n, rows = 37, 12
    arrays = [np.zeros(n, np.int32) for _ in range(rows + 1)]
    arrays[0][:] = np.arange(n)
    program = Program()
    for i in range(rows):
        program.add(count_units, [arrays[i], arrays[i + 1]], [i], fixed=n)
    table, ref = program.table(), arrays[0].astype(np.int64)
    for i in range(rows):
        ref = ref * 3 + i
    crew = Crew(threads)
    try:
        for _ in range(300):
            for array in arrays[1:]:
                array[:] = 0
            crew.run(table, 0, rows, 1, 0)
            np.testing.assert_array_equal(arrays[-1], ref.astype(np.int32))
    finally:
        crew.close()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_rows_beside_each_other_are_all_done_before_the_next(threads):
    n = 64
    first, second, total = np.zeros(n, np.int32), np.zeros(2 * n, np.int32), np.zeros(2 * n, np.int32)
    ones = np.ones(n, np.int32)
    program = Program()
    program.add(count_units, [ones, second[:n]], [1], fixed=n, beside=True)
    program.add(count_units, [ones, second[n:]], [2], fixed=n, beside=True)
    program.add(count_units, [first, first], [0], fixed=0)
    program.add(count_units, [second, total], [0], fixed=2 * n)
    table, crew = program.table(), Crew(threads)
    try:
        for _ in range(200):
            second[:] = total[:] = 0
            crew.run(table, 0, len(table), 1, 0)
            assert total.tolist() == [12] * n + [15] * n
    finally:
        crew.close()


def test_units_follow_tokens_sixes_and_cuts():
    out = np.zeros(100, np.int32)
    for units, tokens, start in (
        ({"per_token": 3}, 5, 0),
        ({"per_six": 2}, 13, 0),
        ({"per_cut": 4}, 1, 256),
        ({"fixed": 1, "per_cut": 1}, 2, 255),
    ):
        want = sum(
            {"per_token": tokens, "per_six": -(-tokens // 6), "per_cut": -(-(start + tokens) // 256), "fixed": 1}[key]
            * n
            for key, n in units.items()
        )
        program, crew = Program(), Crew(2)
        program.add(count_units, [np.zeros(100, np.int32), out], [1], **units)
        out[:] = 0
        crew.run(program.table(), 0, 1, tokens, start)
        crew.close()
        assert out.tolist() == [1] * want + [0] * (100 - want)


def test_idle_threads_park_and_wake_again():
    n = 8
    source, out, program = np.ones(n, np.int32), np.zeros(n, np.int32), Program()
    program.add(count_units, [source, out], [0], fixed=n)
    table, crew = program.table(), Crew(3)
    try:
        crew.run(table, 0, 1, 1, 0)
        deadline = time.monotonic() + 20
        while crew._parked < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert crew._parked == 2
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.05
        out[:] = 0
        crew.run(table, 0, 1, 1, 0)
        assert out.tolist() == [3] * n
    finally:
        crew.close()
    crew.close()


ACCESSES = sorted(name for name in vars(memory) if name.startswith(("load_", "broadcast_", "store_")))
STORED = {
    "store_f32x16": "splat_f32(np.float32(1))",
    "store_f16x16": "splat_f32(np.float32(1))",
    "store_bf16x16": "splat_f32(np.float32(1))",
    "store_i32x16": "splat_i32(np.int32(1))",
    "store_i8x16": "splat_i32(np.int32(1))",
    "store_u8x64": "as_u8(splat_i32(np.int32(1)))",
    "store_f32": "np.float32(1)",
    "store_f16": "np.float32(1)",
    "store_i32": "np.int32(1)",
    "store_i64": "1",
    "store_u16": "1",
    "store_u8": "1",
}


def test_every_overrun_is_caught_in_checked_mode(tmp_path):
    """One kernel for each access: one byte too far, one byte before, and just inside."""
    lines = [
        "import numpy as np",
        "from runtime.jit import kernel",
        "from runtime.simd.memory import *",
        "from runtime.simd.memory import buffer, integer",
    ]
    lines += ["from runtime.simd.vectors import as_u8, splat_f32, splat_i32"]
    for name in ACCESSES:
        value = f", {STORED[name]}" if name.startswith("store_") else ""
        lines += [
            "@kernel",
            f"def {name}_at(args, tokens, start, thread, lo, hi):",
            f"    {name}(buffer(args, 0), integer(args, 32){value})",
        ]
    (tmp_path / "accesses.py").write_text("\n".join(lines) + "\n")
    script = """
        import numpy as np, accesses
        from runtime.program import Program
        from runtime.overruns import overruns
        from runtime.workers import Crew
        crew = Crew(1)
        for name, size in SIZES.items():
            array = np.zeros(256, np.uint8)
            for at, want in ((0, 0), (256 - size, 0), (256 - size + 1, 1), (-1, 1), (1 << 40, 1), (-(1 << 40), 1)):
                program = Program()
                program.add(getattr(accesses, name + "_at"), [array], [at], fixed=1)
                overruns.value = 0
                try:
                    crew.run(program.table(), 0, 1, 1, 0)
                    caught = 0
                except RuntimeError:
                    caught = 1
                assert caught == want, (name, at, caught)
        print("all", len(SIZES))
    """
    sizes = {}
    for name in ACCESSES:
        kind = name.partition("_")[2]
        width = {"4": 4, "f32": 4, "i32": 4, "i64": 8, "u8": 1, "u16": 2, "f16": 2}.get(kind)
        if width is None:
            base, _, lanes = kind.partition("x")
            width = int(lanes) * {"f32": 4, "f16": 2, "bf16": 2, "i32": 4, "u16": 2, "u8": 1, "i8": 1}[base]
        sizes[name] = width
    code = f"SIZES = {sizes!r}\n" + textwrap.dedent(script)
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"REFQUANT_CHECKED": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"all {len(ACCESSES)}"


def test_tables_may_go_while_late_threads_still_look_at_them():
    """Many short-lived tables with more threads than cores: a follower that reads one after it went would crash."""
    n, crew = 4, Crew(6)
    source, out = np.ones(n, np.int32), np.zeros(n, np.int32)
    try:
        for rows in range(400):
            program = Program()
            for _ in range(rows % 7 + 1):
                program.add(count_units, [source, out], [rows], fixed=n)
            crew.run(program.table(), 0, len(program), 1, 0)
            assert out.tolist() == [3 + rows] * n
    finally:
        crew.close()
