"""Two backends compared code by code: what differs, what one refuses, what only one knows."""

from types import SimpleNamespace

import numpy as np
import pytest

from conformance import vectors
from conformance.__main__ import main
from conformance.adapters import refquant
from conformance.backend_difference import differences, lines
from conformance.protocol import Refused, Unsupported


def backend(run):
    return SimpleNamespace(NAME="other", version=lambda: "1", run=run)


def found(run, pattern="scheme.int4:encode/random"):
    return list(differences(refquant, backend(run), vectors.select(pattern)))


def test_a_backend_equals_itself():
    ((name, difference),) = found(refquant.run)
    assert name == "scheme.int4:encode/random"
    assert difference.equal


def test_the_first_code_that_differs_is_named():
    def run(*request):
        got = dict(refquant.run(*request))
        got["codes"] = got["codes"].copy()
        got["codes"][1, 2] += 1
        return got

    text = list(lines(found(run)))
    assert "codes: 1 of 256 differ, the first at [1, 2]:" in text[0]
    assert text[-1] == "1 of 1 tests differ"


def test_what_one_side_refuses_differs_and_what_it_does_not_know_is_left_out():
    def refuse(*request):
        raise Refused("no")

    def unknown(*request):
        raise Unsupported("no")

    assert [each for _, each in found(refuse)] == ["refused by other only"]
    assert found(refuse, "scheme.int4:refuse/nan")[0][1].equal
    assert found(unknown) == []


def test_the_command_says_by_its_status_whether_they_differ(capsys):
    assert main(["diff", "refquant", "refquant", "--only", "scheme.int4:encode/*"]) == 0
    assert capsys.readouterr().out.endswith("0 of 10 tests differ\n")
    assert main(["diff", "refquant", "refquant", "--only", "nothing"]) == 1
    assert main(["diff", "refquant", "nobody"]) == 1


def test_gguf_py_parts_from_ggml_in_the_sign_of_a_zero(peer, capsys):
    peer("gguf")
    assert main(["diff", "refquant", "gguf_py", "--only", "gguf.Q4_0:encode/zero-block"]) == 1
    assert "bytes: 1 of 144 differ" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(2, 3)])
def test_arrays_of_other_shapes_differ_everywhere(shape):
    ((_, difference),) = found(lambda *request: {"codes": np.zeros(shape, np.int8)})
    assert difference.differing > 256
