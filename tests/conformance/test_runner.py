"""Outcomes: what an adapter does, and what is made of it."""

import json
from itertools import count

import numpy as np
import pytest

from conformance import adapters, known, results, runner
from conformance.__main__ import main
from conformance.arrays import to_json
from conformance.protocol import Outcome, Refused, Unsupported
from conformance.results import Results
from conformance.vectors import Test
from refquant.errors import QuantError

ONE = np.float32([1])


class Backend:
    """Does what `answer()` does."""

    NAME = "backend"

    def __init__(self, answer):
        self.answer = answer

    def version(self):
        return "1.0"

    def run(self, algorithm, op, params, inputs):
        return self.answer()


def case(expect):
    record = {"inputs": {"x": to_json(ONE)}, "expect": expect}
    return Test("gguf.Q0", "encode", "one", "encode", {}, ("Flag",), "valid", record, None, {})


def outcome(answer, expect):
    (found,) = runner.run([case(expect)], Backend(answer))
    assert found.seconds >= 0
    return found.status, found.reason


def raising(error):
    def answer():
        raise error

    return answer


BITS = {"y": {"bits": to_json(ONE)}}


def test_outputs_that_meet_the_expectation_pass_and_others_fail():
    assert outcome(lambda: {"y": ONE, "more": ONE}, BITS) == ("pass", "")
    status, reason = outcome(lambda: {"y": -ONE}, BITS)
    assert (status, reason[:23]) == ("fail", "y: 1 of 1 differ, the f")
    assert outcome(lambda: {"z": ONE}, BITS) == ("fail", "y: absent, expected an output of this name")


def test_a_refusal_passes_only_where_it_is_expected():
    assert outcome(raising(Refused("NaN")), None) == ("pass", "refused: NaN")
    assert outcome(raising(Refused("NaN")), BITS) == ("fail", "refused: NaN")
    assert outcome(lambda: {"y": ONE}, None) == ("fail", "accepted, expected a refusal")


def test_what_is_unsupported_is_skipped_and_what_is_thrown_is_an_error():
    assert outcome(raising(Unsupported("no Q0")), BITS) == ("skip", "no Q0")
    assert outcome(raising(ZeroDivisionError("x")), BITS) == ("error", "ZeroDivisionError: x")
    assert outcome(raising(ZeroDivisionError("x")), None) == ("error", "ZeroDivisionError: x")


def test_a_free_choice_must_be_the_same_twice():
    either = {"y": {"either": [{"bits": to_json(ONE)}, {"bits": to_json(ONE + 1)}]}}
    assert outcome(lambda: {"y": ONE}, either)[0] == "pass"
    calls = count(1)
    assert outcome(lambda: {"y": ONE * next(calls)}, either) == ("fail", "y: a second call gave other bytes")
    assert outcome(lambda: {"y": ONE * 3}, either)[0] == "fail"


def test_results_know_what_was_expected():
    explained = (known.Known("gguf.Q0:encode/*", "ties", "rule: of ggml"),)
    failed, passed = Outcome("gguf.Q0:encode/a", "fail", "why", ("Flag",)), Outcome("gguf.Q0:encode/b", "pass")
    skipped = Outcome("gguf.Q1:encode/a", "skip")
    assert not Results("b", "B", "1", (failed,), ()).good
    assert Results("b", "B", "1", (failed,), explained).good
    assert not Results("b", "B", "1", (failed, passed), explained).good
    assert not Results("b", "B", "1", (skipped,), ()).good
    assert Results("b", "B", "1", (skipped, passed), ()).good
    text = "\n".join(results.lines(Results("b", "B", "1", (failed,), ()), {"Flag": {"effect": "it breaks"}}))
    assert "FAIL gguf.Q0:encode/a: why [Flag: it breaks]" in text
    assert "replay: python -m conformance run --backend b --only 'gguf.Q0:encode/a'" in text
    assert "UNEXPECTED PASS" in "\n".join(results.lines(Results("b", "B", "1", (passed,), explained), {}))


def test_changes_since_a_record_are_listed(tmp_path):
    record = tmp_path / "last.json"
    before = (Outcome("a", "pass"), Outcome("b", "fail"), Outcome("gone", "pass"))
    results.write(Results("b", "B", "1", before, ()), record)
    assert json.loads(record.read_text("utf-8"))["version"] == "1"
    after = (Outcome("a", "fail"), Outcome("b", "fail"), Outcome("new", "skip"))
    found = results.changes(Results("b", "B", "1", after, ()), record)
    assert found == ["a: pass -> fail", "gone: pass -> absent", "new: absent -> skip"]


def test_known_failures_are_a_pattern_a_reason_and_a_link(tmp_path):
    (tmp_path / "b.txt").write_text("# comment\n\ngguf.Q*:e/*    wraps below 2^-126  https://example.org\n", "utf-8")
    (one,) = known.read("b", tmp_path)
    assert (one.reason, one.link) == ("wraps below 2^-126", "https://example.org")
    assert one.covers("gguf.Q4_0:e/x")
    assert not one.covers("gguf.Q4_0:d/x")
    assert known.read("absent", tmp_path) == []
    (tmp_path / "b.txt").write_text("gguf.Q*:e/*  no link\n", "utf-8")
    with pytest.raises(QuantError, match=r"b\.txt:1: fields = 2"):
        known.read("b", tmp_path)


def test_every_list_of_known_failures_reads_and_belongs_to_a_backend():
    for path in known.FOLDER.glob("*.txt"):
        name, _, device = path.stem.rpartition("_")
        assert path.stem in adapters.NAMES or (name in adapters.NAMES and device == "cuda")
        assert all(k.link.startswith(("https://", "rule:")) for k in known.read(path.stem)), path


def test_every_adapter_loads_without_its_backend():
    for name in adapters.NAMES:
        adapter = adapters.load(name)
        assert adapter.NAME
        with pytest.raises(Unsupported):
            adapter.run("no_such_family.x", "encode", {}, {"x": ONE})
    with pytest.raises(QuantError, match="expected one of"):
        adapters.load("no_such_backend")
    with pytest.raises(QuantError, match="a file that exists"):
        adapters.load("no_such_file.py")


def test_the_command_line_runs_tracks_and_refuses(tmp_path, capsys):
    mine, record = tmp_path / "mine.py", tmp_path / "last.json"
    mine.write_text("from conformance.adapters.refquant import run\nNAME = 'mine'\nversion = lambda: '7'\n", "utf-8")
    arguments = ["run", "--backend", str(mine), "--only", "gguf.Q8_0:decode/*", "--track", str(record)]
    assert main(arguments) == 0
    assert "mine 7" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "nothing" in capsys.readouterr().out
    mine.write_text("NAME = 'mine'\nversion = lambda: '8'\ndef run(*_):\n    return {}\n", "utf-8")
    assert main(arguments) == 1
    assert "pass -> fail" in capsys.readouterr().out
    assert main(["run", "--backend", str(mine), "--only", "nothing.*"]) == 1
    assert "expected a glob that some test matches" in capsys.readouterr().err
