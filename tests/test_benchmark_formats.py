import sys
import time

import numpy as np
import pytest

from benchmarks import formats
from refquant import SCHEMES, schemes


def test_the_table_has_a_line_for_each_peer_that_is_installed(capsys, monkeypatch):
    only = "fp8_e4m3fn-cast,fp4_e2m1-cast"
    monkeypatch.setattr(formats, "CASES", [case for case in formats.CASES if case.package == "ml_dtypes"])
    monkeypatch.setattr(sys, "argv", ["formats", "--size", "64", "--rounds", "1", "--only", only])
    formats.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == only.split(",")
    assert all(line.count("|") == 7 for line in lines)


def test_every_case_names_a_scheme():
    assert len(SCHEMES) > len(formats.CASES)
    assert all(str(schemes.parse(case.scheme)) for case in formats.CASES)


def test_the_least_of_the_rounds_counts():
    waits = iter([0, 0.02, 0.001, 0.02])
    ours, theirs = formats.alternating(lambda: time.sleep(next(waits)), lambda: time.sleep(0.01), 3)
    assert 0.001 <= ours < 0.02
    assert theirs >= 0.01


def test_memory_is_counted_in_units_of_the_input():
    x = np.zeros(1 << 18, np.float32)
    assert formats.peak_memory(lambda: x * 2, x) == pytest.approx(1, abs=0.05)
    assert formats.peak_memory(lambda: (x * 2, x * 3), x) == pytest.approx(2, abs=0.05)
