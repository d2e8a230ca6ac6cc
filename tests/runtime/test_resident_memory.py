"""Resident memory: what the files of /proc say, and this very process."""

import sys

import numpy as np

from runtime.resident_memory import ResidentMemory, reset_peak, resident_memory


def proc(root, status, rollup):
    folder = root / "proc/self"
    folder.mkdir(parents=True)
    for name, text in (("status", status), ("smaps_rollup", rollup)):
        if text is not None:
            (folder / name).write_text(text)
    return root


def test_anonymous_pages_and_pages_of_files_are_told_apart(tmp_path):
    rollup = "55-7f ---p 00000000 00:00 0    [rollup]\nRss:    100 kB\nPss:  90 kB\nAnonymous:   30 kB\n"
    root = proc(tmp_path, "Name:\tpython\nVmHWM:\t     200 kB\nVmRSS:\t     100 kB\n", rollup)
    assert resident_memory(root) == ResidentMemory(200 << 10, 30 << 10, 70 << 10)


def test_without_rollup_the_peak_is_all_there_is(tmp_path):
    assert resident_memory(proc(tmp_path, "VmHWM:\t 200 kB\n", None)) == ResidentMemory(200 << 10)


def test_without_proc_the_peak_comes_from_elsewhere(tmp_path):
    got = resident_memory(tmp_path)
    assert got.anonymous is got.file is None
    assert got.peak is None or got.peak > 1 << 20


def test_the_peak_follows_an_array_and_can_be_reset():
    before = resident_memory()
    assert (before.anonymous is not None) == (sys.platform == "linux")
    if before.anonymous is None:
        return
    array = np.ones(1 << 23)  # 64 MiB
    held = resident_memory()
    assert held.anonymous - before.anonymous > 60 << 20
    assert held.peak >= held.anonymous + held.file - (1 << 20)
    del array
    if reset_peak():
        assert resident_memory().peak < held.peak
