"""The committed vectors: their form, their counts, and that they are what the oracle says."""

import json
from collections import Counter
from pathlib import Path

import pytest

from conformance import generate, results, runner, vectors
from conformance.adapters import refquant as oracle
from conformance.results import Results
from refquant.errors import QuantError

SCHEMA = Path(vectors.__file__).parent / "schema" / "v1.json"


@pytest.fixture(scope="module")
def contents():
    return {path: json.loads(path.read_text("utf-8")) for path in vectors.files()}


def test_every_file_follows_the_schema(peer, contents):
    validator = peer("jsonschema").Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    for path, content in contents.items():
        error = next(validator.iter_errors(content), None)
        assert error is None, f"{path}: {error.json_path}: {error.message[:200]}"


@pytest.mark.parametrize("spoil", [
    lambda c: c.pop("notes"),
    lambda c: c["groups"][0]["tests"][0].update(result="maybe"),
    lambda c: c["groups"][0]["tests"][0].update(expect=None),
    lambda c: c["groups"][0]["tests"][0]["inputs"].update(x={"dtype": "float32", "shape": [1], "hex": "0G"}),
    lambda c: c["groups"][0].update(witness=["me"]),
])  # fmt: skip
def test_the_schema_can_fail(peer, contents, spoil):
    validator = peer("jsonschema").Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    content = json.loads(json.dumps(next(c for p, c in contents.items() if p.stem == "Q4_0")))
    assert validator.is_valid(content)
    spoil(content)
    assert not validator.is_valid(content)


def test_there_are_3000_tests_and_each_file_counts_its_own(contents):
    total = 0
    for path, content in contents.items():
        count = sum(len(group["tests"]) for group in content["groups"])
        assert content["numberOfTests"] == count, path
        total += count
    assert total >= 3000


def test_ids_are_unique_and_flags_have_notes(contents):
    ids = Counter(test.id for path in contents for test in vectors.read(path))
    assert [name for name, count in ids.items() if count > 1] == []
    for path, content in contents.items():
        used = {flag for group in content["groups"] for test in group["tests"] for flag in test["flags"]}
        assert used == content["notes"].keys(), path


def test_results_and_expectations_agree(contents):
    for path in contents:
        for test in vectors.read(path):
            assert (test.record["expect"] is None) == (test.result == vectors.INVALID), test.id
            assert (test.result == vectors.ACCEPTABLE) == any("either" in e for e in (test.expect or {}).values())


def test_decoders_are_never_held_to_a_looser_word_than_exact(contents):
    for path in contents:
        for test in vectors.read(path):
            if test.op == "decode":
                assert all(expect.keys() <= {"bits", "exact"} for expect in (test.expect or {}).values()), test.id


def test_select_takes_ids_algorithms_and_groups():
    one = [test.id for test in vectors.select("gguf.Q4_0:encode/tie")]
    assert one == ["gguf.Q4_0:encode/tie"]
    assert {test.group for test in vectors.select("gguf.Q4_0:decode")} == {"decode"}
    assert {test.algorithm for test in vectors.select("gguf.Q4_?")} >= {"gguf.Q4_0", "gguf.Q4_1", "gguf.Q4_K"}


def test_a_folder_without_vectors_is_an_error(tmp_path):
    with pytest.raises(QuantError, match="no vector files"):
        vectors.files(tmp_path)


def test_the_oracle_passes_every_test():
    found = Results("refquant", oracle.NAME, oracle.version(), tuple(runner.run(vectors.select(), oracle)), ())
    assert [f"{o.test}: {o.reason}" for o in found.unexpected] == []
    assert {o.status for o in found.outcomes} == {"pass"}
    assert "total" in "\n".join(results.lines(found, {}))


def test_the_committed_vectors_are_what_would_be_generated_now():
    assert generate.write(vectors.ROOT, [], check=True) == []


def test_check_sees_a_changed_a_missing_and_a_surplus_file(tmp_path, monkeypatch):
    path = Path("gguf") / "Q8_0.json"
    content = json.loads((vectors.ROOT / path).read_text("utf-8"))
    content["groups"] = [group | {"witness": []} for group in content["groups"]]
    monkeypatch.setattr(generate, "build", lambda: iter([(path, content)]))
    assert generate.write(tmp_path, [], check=True) == ["inputs.safetensors: differs", f"{path}: is missing"]
    assert list(tmp_path.iterdir()) == []
    generate.write(tmp_path, [], check=False)
    assert generate.write(tmp_path, [], check=True) == []
    made = tmp_path / path
    made.write_text(made.read_text("utf-8").replace("random", "randon", 1), "utf-8")
    made.with_name("Q9_0.json").write_text("{}", "utf-8")
    assert generate.write(tmp_path, [], check=True) == [f"{path}: differs", "gguf/Q9_0.json: has no case"]


def test_witnesses_are_found_excepted_and_kept(tmp_path, monkeypatch):
    path = Path("gguf") / "Q8_0.json"
    content = json.loads((vectors.ROOT / path).read_text("utf-8"))
    (tmp_path / "inputs.safetensors").write_bytes((vectors.ROOT / "inputs.safetensors").read_bytes())
    content["groups"] = [group | {"witness": []} for group in content["groups"]]
    build = lambda: iter([(path, json.loads(json.dumps(content)))])
    monkeypatch.setattr(generate, "build", build)

    outcome = lambda test, status: {"test": f"gguf.Q8_0:{test}", "status": status}
    tests = [f"{group['name']}/{test['id']}" for group in content["groups"] for test in group["tests"]]
    good = {t for t in tests if t.startswith("decode") or t in ("encode/tie", "refuse/nan")}
    record = {"name": "half", "version": "1", "outcomes": [outcome(t, "pass" if t in good else "fail") for t in tests]}
    generate.write(tmp_path, [], check=False)
    generate.write(tmp_path, [generate.witness(record)], check=False)
    generate.write(tmp_path, [], check=False)
    made = json.loads((tmp_path / path).read_text("utf-8"))
    groups = {group["name"]: group for group in made["groups"]}
    assert groups["decode"]["witness"] == [{"name": "half", "version": "1"}]
    assert groups["refuse"]["witness"] == []
    (found,) = groups["encode"]["witness"]
    assert "tie" not in found["except"]
    alone = {group: names for group, names, _ in generate.unwitnessed(made)}
    assert (alone["decode"], alone["encode"]) == ([], found["except"])
    assert all(len(names) == count for _, names, count in generate.unwitnessed(content))


def test_witnesses_of_vectors_that_would_change_are_refused(tmp_path, monkeypatch):
    path = Path("gguf") / "Q8_0.json"
    content = json.loads((vectors.ROOT / path).read_text("utf-8"))
    monkeypatch.setattr(generate, "build", lambda: iter([(path, content)]))
    with pytest.raises(QuantError, match="would change: write it, run the backends"):
        generate.write(tmp_path, [{"name": "w", "version": "1", "passed": set()}], check=False)
