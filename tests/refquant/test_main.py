import json
import os
import subprocess
import sys

import numpy as np
import pytest

from refquant import SCHEMES, __version__, gguf
from refquant.__main__ import main


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.gguf"
    gguf.write(path, {"general.architecture": "llama", "name": "ünïcode"}, {"w": (np.ones((2, 4), np.float32), "F32")})
    return path


def test_schemes_lists_every_registered_name_with_its_bits(capsys):
    assert main(["schemes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert SCHEMES.keys() <= listed.keys()
    assert gguf.FORMATS.keys() <= listed.keys()
    assert (listed["int4-g128"], listed["nf4"], listed["Q6_K"]) == ("4.250", "4.500", "6.562")
    assert max(map(len, lines)) <= 120


def test_schemes_as_json(capsys):
    assert main(["schemes", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["Q4_0"]["encode"]
    assert not rows["IQ1_S"]["encode"]
    assert rows["int4-g128-asym"]["bits_per_weight"] == 4.28125
    assert rows["int8-channel"]["shared"] == "channel"


def test_inspect_shows_metadata_and_tensors(model, capsys):
    assert main(["inspect", str(model)]) == 0
    out = capsys.readouterr().out
    assert "general.architecture  str       llama" in out
    assert "w     F32   2 x 4  32 B           32" in out


def test_inspect_as_json(model, capsys):
    assert main(["inspect", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["metadata"]["name"]["value"] == "ünïcode"
    assert facts["tensors"][0]["shape"] == [2, 4]


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"GGUF" + bytes(3)])
def test_a_bad_file_is_one_line_and_status_one(content, tmp_path, capsys):
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert main(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refquant: ")
    assert "bad.gguf" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv, status", [([], 2), (["nonsense"], 2), (["inspect"], 2), (["--help"], 0), (["--version"], 0)]
)
def test_command_lines_that_argparse_answers_return_their_status(argv, status, capsys):
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert (out if status == 0 else err).strip()


def test_help_says_what_to_type(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    assert all(text in out for text in ("refquant schemes", "refquant inspect model.gguf", "exit status"))
    main(["schemes", "--help"])
    assert "int4-g128-asym" in capsys.readouterr().out
    main(["--version"])
    assert capsys.readouterr().out == f"refquant {__version__}\n"


def run(*argv, **environment):
    command = [sys.executable, "-W", "error", "-m", "refquant", *argv]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}, text=True
    )


def test_a_closed_pipe_is_no_error():
    process = run("schemes")
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_an_ascii_terminal_gets_escapes(model):
    process = run("inspect", str(model), PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert r"\xfcn\xefcode" in out
