"""Plain Python gives the answers of vector codes, caches, rotations, collectives, training and steps of methods."""

import pytest

from conformance import runner, vectors


@pytest.mark.parametrize("pattern, passed", [
    ("vector.aqlm:decode", 5), ("vector.e8p:unpack", 2), ("vector.qtip:decode", 6), ("vector.vptq:decode", 16),
    ("cache.kivi:keep", 3), ("cache.kvquant:first", 10), ("rotation.quip:*", 24), ("rotation.quarot:turn/[pt]*", 3),
    ("collective.*:scatter/*", 7), ("training.pact:*", 22), ("training.lsq_plus:step*", 18), ("method.obs:*", 26),
])  # fmt: skip
def test_the_families_are_those_of_the_papers(pattern, passed):
    import family_witness

    tests = [test for test in vectors.select(pattern) if test.expect is not None]
    statuses = [outcome.status for outcome in runner.run(tests, family_witness)]
    assert "fail" not in statuses
    assert statuses.count("pass") >= passed


@pytest.mark.parametrize("function, passed", [
    ("hessian:Hessian", 20), ("sparsity:*", 10), ("factor:factors", 10), ("compensated:*", 8), ("adam:*", 8),
    ("layer_inputs:tokens", 5), ("adaround:soft", 1), ("smoothquant:smooth_scale", 5), ("grid:fit", 10),
])  # fmt: skip
def test_steps_are_those_of_the_papers(function, passed):
    import step_witness

    tests = [test for test in vectors.select(f"step.{function}") if test.expect is not None]
    statuses = [outcome.status for outcome in runner.run(tests, step_witness)]
    assert "fail" not in statuses
    assert statuses.count("pass") >= passed
