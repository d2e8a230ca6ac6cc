"""The mutation check: what each operator makes, that survivors and endless loops are seen, and a sample of mutants."""

import ast
import math
import types
from pathlib import Path

import pytest

from conformance import vectors
from conformance.adapters import refquant as oracle
from conformance.mutation import coverage, equivalents, importers, mutants, operators, scope, score, session
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import KILLED, SURVIVED, Verdict
from refquant.errors import QuantError

FILE = "refquant/gguf/planes.py"
SAMPLE = 60


def texts(source: str) -> dict[str, list[str]]:
    """Operator -> the line as each of its mutants has it."""
    found: dict[str, list[str]] = {}
    for mutant in mutants.of_text(source, "x.py"):
        before, _, after = mutant.id.rpartition("::")[2].partition(" -> ")
        assert before != after
        found.setdefault(mutant.operator, []).append(after)
    return found


@pytest.mark.parametrize("operator, source, made", [
    ("constant", "f(4)", ["f(5)"]),
    ("constant", "f(3)", ["f(2)"]),
    ("constant", "f(0.5)", ["f(1.5)"]),
    ("constant", "f(True)", ["f(False)"]),
    ("constant", "x == 3", ["x == 4", "x == 2"]),
    ("comparison", "x < y", ["x <= y"]),
    ("comparison", "x <= y", ["x < y"]),
    ("comparison", "x > y", ["x >= y"]),
    ("comparison", "x is None", ["x is not None"]),
    ("comparison", "a < b in c", ["a <= b in c", "a < b not in c"]),
    ("rounding", "r = half_even", ["r = __import__('refquant.rounding').rounding.half_away"]),
    ("rounding", "rounding.half_up(x)", ["rounding.half_down(x)"]),
    ("rounding", "np.floor(x)", ["np.ceil(x)"]),
    ("rounding", "f('toward_zero')", ["f('half_even')"]),
    ("shift", "x << 2", ["x >> 2"]),
    ("shift", "x >>= y", ["x <<= y"]),
    ("bitwise", "x & y", ["x | y"]),
    ("arithmetic", "x + y", ["x - y"]),
    ("arithmetic", "x /= y", ["x *= y"]),
    ("logic", "x and y", ["x or y"]),
    ("logic", "z = not x", ["z = x"]),
    ("clip", "z = np.clip(x, lo, hi)", ["z = x"]),
    ("clip", "z = x.clip(lo, hi)", ["z = x"]),
    ("clip", "z = np.minimum(7, x)", ["z = x"]),
    ("clip", "z = max(x, y)", ["z = x"]),
    ("magnitude", "z = np.abs(x)", ["z = x"]),
    ("dtype", "x.astype(np.float32)", ["x.astype(np.float64)"]),
    ("dtype", "x.astype(np.int32)", ["x.astype(np.int16)"]),
    ("dtype", "f('<f2')", ["f('<f4')"]),
    ("axis", "x.sum(axis=-1)", ["axis=0"]),
    ("axis", "x.sum(axis=0)", ["axis=-1"]),
    ("check", "require_finite(w, x)", ["pass"]),
    ("check", "if x > 1:\n    raise ValueError(x)", ["if False:"]),
])  # fmt: skip
def test_each_operator_makes_the_fault_that_it_promises(operator, source, made):
    assert texts(source)[operator] == made


@pytest.mark.parametrize("source", [
    '"""Text with 4 < 5."""',
    "def f(x: Literal[4] = y) -> Literal[4]: ...",
    "raise ValueError(f'{x + 1} < 3')",
    "f'{x + 1}'",
    "@dataclass(frozen=True, slots=True)\nclass A: ...",
    "x.flags.writeable = False",
    "class A:\n    def __repr__(self):\n        return 4",
])  # fmt: skip
def test_what_computes_nothing_is_left_alone(source):
    assert texts(source) == {}


@pytest.mark.parametrize("source, operators", [
    ("np.uint8(4)", {"constant"}),
    ("np.float32(-2)", {"constant"}),
    ("if x:\n    y = 4 + x\n    raise ValueError(y)", {"check"}),
])  # fmt: skip
def test_the_type_of_a_small_number_and_the_text_of_a_refusal_are_left_alone(source, operators):
    assert texts(source).keys() == operators


def test_ids_are_unique_and_do_not_know_lines():
    source = "def f(x):\n    y = x + 1\n    return x + 1\n"
    names = [mutant.id for mutant in mutants.of_text(source, "x.py")]
    assert names == [
        "x.py::f::arithmetic::x + 1 -> x - 1",
        "x.py::f::constant-1::x + 1 -> x + 0",
        "x.py::f::arithmetic::x + 1 -> x - 1 [2]",
        "x.py::f::constant-1::x + 1 -> x + 0 [2]",
    ]
    assert [mutant.id for mutant in mutants.of_text(f"\n\n{source}", "x.py")] == names


def test_a_mutant_of_a_body_and_one_of_a_default_know_when_they_run():
    found = mutants.of_text("N = 2\ndef f(x=4):\n    return lambda: x + 1\n", "x.py")
    assert [(mutant.function, mutant.imported) for mutant in found] == [
        ("N", True), ("<module>", True), ("f", False), ("f", False),
    ]  # fmt: skip


def test_every_site_can_be_undone():
    for file in scope.files("gguf/l*"):
        tree = ast.parse(mutants.source(file))
        before = ast.dump(tree)
        for site in mutants.sites(tree):
            for operator in operators.OPERATORS.values():
                for _, new in operator(site):
                    site.put(new)
                    site.put(site.node)
        assert ast.dump(tree) == before


def test_the_scope_is_there_and_large():
    assert scope.missing() == []
    assert sum(len(mutants.of_file(file)) for file in scope.FILES) >= 600
    assert scope.files("gguf/legacy") == ["refquant/gguf/legacy.py"]


def test_importers_are_found_through_others():
    assert "refquant.gguf.legacy" in importers.direct("refquant.gguf.planes")
    assert {"refquant", "refquant.gguf.formats", "refquant.quantize"} <= importers.dependents("refquant.gguf.planes")
    assert "refquant.rounding" not in importers.dependents("refquant.gguf.planes")


@pytest.fixture(scope="module")
def few():
    """The tests of one type, and the lines that they run."""
    tests = list(vectors.select("gguf.Q4_0:decode"))
    return tests, coverage.measure(tests, oracle)


def verdict(few, mutant: Mutant, monkeypatch, line: str, instead: str) -> Verdict:
    """What comes of the file with one line written otherwise."""
    source = mutants.source(mutant.file)
    assert line in source
    monkeypatch.setattr("conformance.mutation.loading.mutants", types.SimpleNamespace(
        code=lambda mutant: compile(source.replace(line, instead), str(mutants.ROOT / mutant.file), "exec")
    ))  # fmt: skip
    tests, reach = few
    ((_, found),) = session.run([mutant], tests, reach, jobs=1)
    return found


@pytest.fixture
def split_planes():
    return next(m for m in mutants.of_file(FILE) if m.function == "split" and not m.imported)


@pytest.mark.parametrize("imported", [False, True])
def test_a_mutant_that_computes_the_same_survives(few, split_planes, monkeypatch, imported):
    mutant = Mutant(**vars(split_planes) | {"imported": imported})
    found = verdict(few, mutant, monkeypatch, "import numpy as np", "import numpy as np")
    assert found == Verdict(SURVIVED)


@pytest.mark.parametrize("imported", [False, True])
def test_a_mutant_that_computes_something_else_is_killed_by_a_test(few, split_planes, monkeypatch, imported):
    mutant = Mutant(**vars(split_planes) | {"imported": imported})
    head = mutants.source(FILE).split("def split")[1].split("\n")[0]
    found = verdict(few, mutant, monkeypatch, f"def split{head}", f"def split{head}\n    return np.array(7)\n")
    assert (found.status, found.by) == (KILLED, few[0][found.test].id)


def test_a_reloaded_module_is_the_one_that_its_package_gives(monkeypatch):
    tests = list(vectors.select("observer.min-max:int8"))
    mutant = next(m for m in mutants.of_file("refquant/observers/min_max.py") if m.function == "MinMax._widen")
    few, line = (tests, coverage.measure(tests, oracle)), "np.maximum(hi, self._range[1])"
    found = verdict(few, mutant, monkeypatch, line, "np.minimum(hi, self._range[1])")
    assert found.status == KILLED


def test_a_mutant_that_cannot_be_imported_is_killed(few, split_planes, monkeypatch):
    mutant = Mutant(**vars(split_planes) | {"imported": True})
    found = verdict(few, mutant, monkeypatch, "import numpy as np", "import numpy as np\n1 / 0")
    assert (found.status, found.by) == (KILLED, "import")
    assert "ZeroDivisionError" in found.reason


@pytest.mark.parametrize("body", ["while True: pass", "np.ones(1 << 33)", "import time; time.sleep(100)"])
def test_a_mutant_that_needs_too_much_is_killed(few, split_planes, monkeypatch, body):
    monkeypatch.setattr("conformance.mutation.trial.LEAST", 0.2)
    monkeypatch.setattr("conformance.mutation.trial.SHARE", 3)
    head = mutants.source(FILE).split("def split")[1].split("\n")[0]
    found = verdict(few, split_planes, monkeypatch, f"def split{head}", f"def split{head}\n    {body}\n")
    assert found.status == KILLED


def test_tests_that_fail_already_are_refused():
    class Wrong:
        NAME = "wrong"

        @staticmethod
        def run(*arguments):
            return {}

    with pytest.raises(QuantError, match="expected a pass: values: absent"):
        coverage.measure(list(vectors.select("gguf.Q4_0:decode/random-0")), Wrong)


def test_the_tests_of_a_mutant_are_those_that_run_its_line(few, split_planes):
    tests, reach = few
    assert reach.tests_of(split_planes) == sorted(range(len(tests)), key=lambda i: (reach.seconds[i], i))
    (other,) = [m for m in mutants.of_file("refquant/gguf/legacy.py") if m.function == "decode_q8"][:1]
    assert reach.tests_of(other) == []


def test_equivalents_need_a_reason_and_know_only_the_star(tmp_path):
    path = tmp_path / "equivalents.txt"
    path.write_text("# c\nx.py::f::constant+1::a[0] * -> *  the axis has one element\n", "utf-8")
    (line,) = equivalents.read(path)
    assert line.covers("x.py::f::constant+1::a[0] + b -> a[1] + b")
    assert not line.covers("x.py::g::constant+1::a[0] + b -> a[1] + b")
    path.write_text("x.py::f\n", "utf-8")
    with pytest.raises(QuantError, match=r"equivalents.txt:1: reason = none"):
        equivalents.read(path)


def test_the_score_leaves_equivalents_out_and_tells_idle_lines():
    chosen = mutants.of_file(FILE)[:4]
    dead, alive = Verdict(KILLED, "t"), Verdict(SURVIVED)
    lines = [equivalents.Equivalent(chosen[1].id, "same"), equivalents.Equivalent(chosen[0].id, "killed")]
    found = score.Score(list(zip(chosen, (dead, alive, alive, dead), strict=True)), lines)
    assert found.by_file() == {FILE: {"killed": 2, "equivalent": 1, "survived": 1}}
    assert found.survivors() == [chosen[2]]
    assert found.idle() == [lines[1]]
    assert found.share == pytest.approx(2 / 3)
    shown = "\n".join(score.lines(found, whole=True))
    assert f"SURVIVED {FILE}:{chosen[2].line}  {chosen[2].id}" in shown and "IDLE" in shown and "66.7%" in shown


def test_a_sample_is_the_same_for_a_seed_and_of_ids_alone():
    chosen = mutants.of_file("refquant/gguf/legacy.py")
    first = score.sample(chosen, 10, 1)
    assert first == score.sample(chosen[::-1], 10, 1) != score.sample(chosen, 10, 2)
    assert set(first) > set(score.sample(chosen, 5, 1))


def floor(share: float, count: int, risk: float) -> float:
    """What the share of a sample falls below with a probability under `risk` where `share` is that of all."""
    probability = 0.0
    for killed in range(count + 1):
        probability += math.comb(count, killed) * share**killed * (1 - share) ** (count - killed)
        if probability >= risk:
            return killed / count
    return 1.0


def test_the_floor_of_a_sample_follows_from_the_share_that_is_asked_for():
    assert floor(score.LEAST, SAMPLE, 1e-3) == 51 / 60
    assert floor(0.5, 2, 0.2) == 0 and floor(0.5, 2, 0.3) == 1 / 2


def test_the_vectors_kill_a_sample_of_mutants():
    chosen = score.sample([mutant for file in scope.FILES for mutant in mutants.of_file(file)], SAMPLE, seed=1)
    tests = list(vectors.select())
    outcomes = list(session.run(chosen, tests, coverage.measure(tests, oracle), jobs=2))
    found = score.Score(outcomes, equivalents.read())
    least = floor(score.LEAST, SAMPLE, risk=1e-3)
    assert found.share >= least, "\n".join(score.lines(found, whole=False))


def test_nothing_of_a_trial_stays_behind():
    assert Path(mutants.ROOT / FILE).read_text("utf-8") == mutants.source(FILE)
