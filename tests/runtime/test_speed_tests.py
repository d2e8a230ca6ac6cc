"""The tests of llama-bench: their names, and what a model is asked to read while the clock runs."""

import pytest
from fake_model import FakeModel

from refquant.errors import RangeError
from runtime.speed_tests import SpeedRun, SpeedTest


@pytest.mark.parametrize(
    "test, name",
    [
        (SpeedTest(512, 0), "pp512"),
        (SpeedTest(0, 128), "tg128"),
        (SpeedTest(512, 128), "pp512+tg128"),
        (SpeedTest(0, 32, 4096), "tg32 @ d4096"),
    ],
)
def test_names_are_those_of_llama_bench(test, name):
    assert str(test) == name
    assert test.n_ctx == test.n_depth + test.n_tokens


@pytest.mark.parametrize("numbers", [(0, 0, 5), (-1, 2, 0), (1, -1, 0), (1, 0, -1)])
def test_a_test_of_nothing_is_refused(numbers):
    with pytest.raises(RangeError, match="n_prompt"):
        SpeedTest(*numbers)


@pytest.mark.parametrize(
    "test, prompt, written", [(SpeedTest(20, 0, 0), 20, 0), (SpeedTest(0, 5, 30), 0, 5), (SpeedTest(7, 3, 10), 7, 3)]
)
def test_a_run_reads_the_prompt_and_then_token_by_token_and_not_the_depth(test, prompt, written):
    model = FakeModel(lambda _: "")
    run = SpeedRun(model, test)
    assert sum(model.read) == test.n_depth + prompt + min(written, 1)  # the warm-up
    for _ in range(3):
        model.read.clear()
        assert run.seconds() > 0
        assert sum(model.read) == prompt + written
        assert model.read[len(model.read) - written :] == [1] * written


def test_the_clock_runs_only_while_it_reads(monkeypatch):
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("runtime.speed_tests.time.perf_counter", lambda: next(ticks, 99.0))
    run = SpeedRun.__new__(SpeedRun)
    run.test, run._read = SpeedTest(0, 1), lambda n: None
    run._session = type("Session", (), {"truncate": lambda self, n: None})()
    assert run.seconds() == 2.5
