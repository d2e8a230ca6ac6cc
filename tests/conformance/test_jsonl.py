"""A program as a backend: a small one in C, and others that misbehave."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conformance import adapters, runner, vectors
from conformance.protocol import Refused, Unsupported

SOURCE = Path(__file__).with_name("q8_0.c")
X = {"x": np.float32([[1]])}


@pytest.fixture
def program():
    """`program(text)` is an adapter for a Python program."""
    made = []

    def make(text, seconds=20.0):
        adapter = adapters.load(f"jsonl:{sys.executable} -u -c {quoted(text)}")
        adapter.seconds = seconds
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.close()


def quoted(text):
    return "'" + text + "'"


def answering(answer):
    """A program that introduces itself and then says one thing to everything."""
    return f'input(); print("""{{"name": "p", "version": "2"}}"""); input(); print("""{answer}""")'


def test_a_program_in_c_decodes_q8_0_bit_for_bit(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-o", tmp_path / "q8_0", SOURCE, "-lm"], check=True)
    adapter = adapters.load(f"jsonl:{tmp_path / 'q8_0'}")
    outcomes = list(runner.run(vectors.select("gguf.Q8_0"), adapter))
    adapter.close()
    assert adapter.NAME == "q8_0.c"
    statuses = {o.test.partition(":")[2].partition("/")[0]: set() for o in outcomes}
    for outcome in outcomes:
        statuses[outcome.test.partition(":")[2].partition("/")[0]].add(outcome.status)
    assert statuses.pop("decode") == {"pass"}
    assert set.union(*statuses.values()) == {"skip"}


def test_answers_become_outputs_skips_refusals_and_errors(program):
    said = program(answering('{"outputs": {"y": {"dtype": "uint8", "shape": [2], "hex": "01ff"}}}'))
    assert said.version() == "2"
    np.testing.assert_array_equal(said.run("a.b", "op", {}, X)["y"], np.uint8([1, 255]))
    with pytest.raises(Unsupported, match="not mine"):
        program(answering('{"unsupported": "not mine"}')).run("a.b", "op", {}, X)
    with pytest.raises(Refused, match="NaN"):
        program(answering('{"refused": "NaN"}')).run("a.b", "op", {}, X)
    with pytest.raises(RuntimeError, match="out of memory"):
        program(answering('{"error": "out of memory"}')).run("a.b", "op", {}, X)


@pytest.mark.parametrize("answer", ["hello", "[1]", ""])
def test_other_answers_are_errors_of_the_test_and_the_program_starts_anew(program, answer):
    adapter = program(answering(answer))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected a JSON object"):
            adapter.run("a.b", "op", {}, X)


def test_a_program_that_dies_or_is_silent_is_an_error(program):
    with pytest.raises(RuntimeError, match="expected a JSON object within"):
        program("import sys; sys.exit(3)").version()
    with pytest.raises(RuntimeError, match=r"within 0\.5 s"):
        program("import time; time.sleep(30)", seconds=0.5).version()


def test_a_program_that_is_not_there_is_not_installed():
    with pytest.raises(Unsupported, match="no-such-program"):
        adapters.load("jsonl:./no-such-program").version()
