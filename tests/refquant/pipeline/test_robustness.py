"""What can go wrong outside the program: a kill, a full disk, broken folders. Every case through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant.__main__ import main
from refquant.layouts import safetensors_file

ROOT = Path(__file__).resolve().parents[3]
TEXT = "the command and that file with this output\n" * 60


def folder(path, kind="qwen2", **options):
    return write_tiny_checkpoint(path, kind, n_embd=128, n_ff=256, dtype="BF16", **options)


def command(*arguments, before="", **options) -> subprocess.Popen:
    """`python -m refquant ...` in a process of its own; `before` is Python that it runs first."""
    code = f"import sys; {before}\nfrom refquant.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def outcome(*arguments, **options) -> tuple[int, str, str]:
    process = command(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def refused(*arguments, **options) -> str:
    """The one line of a request that fails as it should."""
    status, out, err = outcome(*arguments, **options)
    assert (status, out) == (1, ""), err
    assert err.startswith("refquant: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_a_killed_process_leaves_finished_parts_that_are_not_made_again(tmp_path):
    source = folder(tmp_path / "m", num_hidden_layers=5)
    (tmp_path / "t.txt").write_text(TEXT)
    said = ["quantize", source, "--recipe", "W4A16", "--method", "gptq", "--calibration", tmp_path / "t.txt"]
    said += ["--samples", 8, "--seq-len", 32, "--out"]
    assert outcome(*said, tmp_path / "whole")[0] == 0
    # a pause before each block makes sure that the kill falls into the middle of the run
    slow = "import time; from refquant.pipeline import tasks; go = tasks.rounded\n"
    slow += "def rounded(*item): time.sleep(0.05); return go(*item)\ntasks.rounded = rounded"
    process = command(*said, tmp_path / "q", before=slow)
    left = tmp_path / ".q.partial"
    until = time.monotonic() + 60
    while not (left / "model-00002-of-00006.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "q").exists()  # nothing half-written is visible
    finished = {file.name: file.stat().st_mtime_ns for file in left.glob("model-*.safetensors")}
    assert 2 <= len(finished) < 6
    status, out, err = outcome(*said, tmp_path / "q")
    assert status == 0 and f", {len(finished)} parts were there already" in out, err
    for name, made in finished.items():
        assert (tmp_path / "q" / name).stat().st_mtime_ns == made, f"{name} was made again"
    assert contents(tmp_path / "whole") == contents(tmp_path / "q") and not left.exists()


def test_a_killed_conversion_to_gguf_goes_on_with_the_tensors_that_are_there(tmp_path):
    source = folder(tmp_path / "m", num_hidden_layers=4)
    said = ["quantize", source, "--recipe", "Q4_0", "--executor", "serial", "--out"]
    assert outcome(*said, tmp_path / "whole.gguf")[0] == 0
    slow = "import time; from refquant.pipeline import to_gguf; go = to_gguf.bytes_of\n"
    slow += "def bytes_of(*item, **table): time.sleep(0.03); return go(*item, **table)\nto_gguf.bytes_of = bytes_of"
    process = command(*said, tmp_path / "q.gguf", before=slow)
    finished, until = tmp_path / ".q.gguf.partial" / "finished.txt", time.monotonic() + 60
    while not (finished.exists() and finished.read_text().count("\n") > 8) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "q.gguf").exists()
    count = finished.read_text().count("\n")
    status, out, err = outcome(*said, tmp_path / "q.gguf")
    assert status == 0 and f", {count} parts were there already" in out, err
    assert count > 8
    named = [(tmp_path / name).read_bytes() for name in ("whole.gguf", "q.gguf")]
    assert named[0] == named[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "q.gguf", "whole.gguf"]


LIMIT = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
LIMIT += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"


@pytest.mark.parametrize("recipe, name", [("W8A16", "q"), ("Q8_0", "q.gguf")])
def test_a_file_that_may_not_grow_is_one_line_and_no_output(tmp_path, recipe, name):
    """The limit of the operating system on the size of a file: needs no rights, and works wherever tests run."""
    source = folder(tmp_path / "m")
    said = ["quantize", source, "--recipe", recipe, "--out", tmp_path / name]
    assert f"{tmp_path / name}: cannot be written: File too large" in refused(*said, before=LIMIT)
    assert not (tmp_path / name).exists()
    assert outcome(*said)[0] == 0 and not list(tmp_path.glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB: a tmpfs where it may be mounted, or in a namespace of its own where only that is."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        yield disk, []
        subprocess.run(["umount", "-l", str(disk)], check=True)
        return
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{" ".join(mount)} && exec "$0" "$@"']
    allowed = subprocess.run([*inside, "true"], capture_output=True).returncode == 0
    yield disk, inside if allowed else None


@pytest.mark.parametrize("recipe, name", [("W8A16", "q"), ("Q8_0", "q.gguf")])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path, small_disk, recipe, name):
    disk, inside = small_disk
    source = folder(tmp_path / "m", num_hidden_layers=4)
    said = ["quantize", str(source), "--recipe", recipe, "--out", str(disk / name)]
    if inside is None:  # no way to mount here: the limit on files of 100 KB is the second one
        assert "File too large" in refused(*said, before=LIMIT)
        return
    code = "import sys; from refquant.__main__ import main; sys.exit(main(sys.argv[1:]))"
    made = subprocess.run([*inside, sys.executable, "-c", code, *said], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 1 and made.stderr.count("\n") == 1 and "Traceback" not in made.stderr
    assert "cannot be written: No space left on device" in made.stderr
    if inside:
        return  # the file system went with its namespace
    assert not (disk / name).exists()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    status, out, err = outcome(*said)
    assert status == 0, err
    assert "parts were there already" in out
    assert main([*said[:-1], str(tmp_path / name)]) == 0
    if name == "q":
        assert contents(disk / name) == contents(tmp_path / name)
    else:
        assert (disk / name).read_bytes() == (tmp_path / name).read_bytes()


def test_broken_folders_are_one_line_each(tmp_path, capsys):
    def request(path, recipe="W4A16", *more):
        assert main(["quantize", str(path), "--recipe", recipe, "--out", str(tmp_path / "q"), *more]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("refquant: ") and err.count("\n") == 1
        return err

    shards = folder(tmp_path / "shards", shards=3)
    (shards / "model-00002-of-00003.safetensors").unlink()
    assert "shard model-00002-of-00003.safetensors is missing" in request(shards)

    cut = folder(tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "model.safetensors" in request(cut)

    unknown = folder(tmp_path / "unknown")
    config = json.loads((unknown / "config.json").read_text()) | {"model_type": "gpt_neox"}
    (unknown / "config.json").write_text(json.dumps(config))
    assert "model_type = 'gpt_neox', expected one of llama" in request(unknown)

    silent = folder(tmp_path / "silent")
    (silent / "tokenizer.json").unlink()
    (tmp_path / "t.txt").write_text(TEXT)
    assert "neither tokenizer.json nor tokenizer.model, expected one of them, or --no-vocab" in request(silent, "Q8_0")
    assert "--no-vocab with layout compressed-tensors" in request(silent, "W4A16", "--no-vocab")
    without = ["quantize", str(silent), "--recipe", "Q8_0", "--no-vocab", "--out", str(tmp_path / "s.gguf")]
    assert main(without) == 0 and "s.gguf" in capsys.readouterr().out
    calibrated = ("--method", "gptq", "--calibration", str(tmp_path / "t.txt"))
    assert "tokenizer.json is missing" in request(silent, "W4A16", *calibrated)

    nan = folder(tmp_path / "nan")
    file = safetensors_file.read(nan / "model.safetensors")
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()]
    at = next(i for i, (name, _, _) in enumerate(tensors) if name.endswith("1.mlp.up_proj.weight"))
    tensors[at][2][3, 5] = 0x7FC0
    safetensors_file.write(nan / "model.safetensors", tensors)
    assert "model.layers.1.mlp.up_proj.weight holds NaN or infinity" in request(nan)
    assert "is no folder" in request(tmp_path / "nothing")
    assert not (tmp_path / "q").exists()
