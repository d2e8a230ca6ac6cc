"""The numbers of a report against direct computation, what the page says, and how it looks in a browser."""

import json
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf, metrics
from refquant.__main__ import main
from refquant.errors import QuantError
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, oneshot, open_checkpoint
from refquant.report import compare, figures, page

IDS = [np.random.default_rng(i).integers(3, 250, 20) for i in range(3)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A random model and its int4 form."""
    folder = tmp_path_factory.mktemp("report")
    source = write_tiny_checkpoint(folder / "m", "qwen2", n_embd=128, n_ff=256, dtype="BF16")
    oneshot(source, "W4A16", None, folder / "q")
    return source, folder / "q"


@pytest.fixture(scope="module")
def found(models):
    return compare(*models, IDS)


def log_probabilities(model, path) -> list[np.ndarray]:
    """Of a folder, by way of a GGUF file and the oracle, float64."""
    convert_to_gguf(model, path, "F32")
    with gguf.open(path) as file:
        oracle = Oracle(file, dtype=np.float64)
        logits = [oracle.logits(list(one)).astype(np.float64)[:-1] for one in IDS]
    return [x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in logits]


def test_predictions_are_those_of_direct_computation(models, found, tmp_path):
    p, q = (log_probabilities(m, tmp_path / f"{i}.gguf") for i, m in enumerate(models))
    nll = [np.mean([-x[i, t] for x, one in zip(r, IDS) for i, t in enumerate(one[1:])]) for r in (p, q)]
    kl = np.concatenate([np.sum(np.exp(x) * (x - y), axis=-1) for x, y in zip(p, q)])
    got = found.predictions
    assert got.tokens == 57
    assert [got.perplexity, got.perplexity_quantized] == pytest.approx(np.exp(nll), rel=1e-4)
    assert [got.kl_mean, got.kl_max] == pytest.approx([kl.mean(), kl.max()], rel=1e-3)
    assert got.kl_p99 == pytest.approx(np.percentile(kl, 99), rel=1e-3)
    assert got.top1 == np.mean([np.mean(x.argmax(-1) == y.argmax(-1)) for x, y in zip(p, q)])


def test_errors_of_matrices_are_those_of_metrics_under_the_hessian(models, found, tmp_path):
    convert_to_gguf(models[0], tmp_path / "m.gguf", "F32")
    seen: dict[str, list[np.ndarray]] = {}
    with gguf.open(tmp_path / "m.gguf") as file:
        oracle = Oracle(file)
        for one in IDS:
            oracle.logits(list(one), tap=lambda name, X: seen.setdefault(name, []).append(X.copy()))
    X = np.concatenate(seen["blk.1.ffn_up.weight"])
    W, W_hat = (open_checkpoint(m).weight("model.layers.1.mlp.up_proj.weight") for m in models)
    got = next(layer for layer in found.layers if layer.name == "model.layers.1.mlp.up_proj")
    assert got.output_error == pytest.approx(metrics.hessian_error(W, W_hat, X.T @ X), rel=1e-3)
    assert (got.sqnr_db, got.cosine) == (metrics.sqnr_db(W, W_hat), metrics.cosine(W, W_hat))
    assert sum(got.histogram) == sum(got.histogram_quantized) == W.size
    assert got.bits == pytest.approx(4 + 16 / 128, rel=0.01) and got.shape == (256, 128)
    assert len(found.layers) == 15  # lm_head too
    assert found.layers[-1].name == "lm_head" and found.layers[-1].sqnr_db == np.inf


def test_sizes_are_those_of_the_files(models, found):
    for model, size in zip(models, (found.original, found.quantized)):
        assert size.nbytes == sum(f.stat().st_size for f in model.glob("*.safetensors"))
        assert size.bits == 8 * size.nbytes / open_checkpoint(models[0]).parameters


def test_a_gguf_file_is_compared_like_a_folder(models, tmp_path):
    convert_to_gguf(models[0], tmp_path / "m.gguf", "Q8_0")
    got = compare(models[0], tmp_path / "m.gguf", IDS)
    assert all(40 < layer.sqnr_db < 55 for layer in got.layers)
    same = compare(tmp_path / "m.gguf", tmp_path / "m.gguf", IDS)
    assert same.predictions.kl_max < 1e-9 and same.predictions.top1 == 1


@pytest.mark.parametrize("recipe, ids", [("W8A8", None), ("NVFP4", IDS)])
def test_inputs_are_rounded_where_the_folder_says_so(models, tmp_path, recipe, ids):
    oneshot(models[0], recipe, ids, tmp_path / "q")
    rounded, plain = compare(models[0], tmp_path / "q", IDS), tmp_path / "p"
    shutil.copytree(tmp_path / "q", plain)
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = None
    (plain / "config.json").write_text(json.dumps(config))
    assert rounded.predictions.kl_mean > 1.2 * compare(models[0], plain, IDS).predictions.kl_mean
    assert rounded.notes == ()


def test_scaled_channels_are_noted(models, tmp_path):
    oneshot(models[0], {"scheme": "W8A8", "method": "smoothquant"}, IDS, tmp_path / "q")
    assert any("norm gains differ" in note for note in compare(models[0], tmp_path / "q", IDS).notes)


def test_two_different_models_are_refused(models, tmp_path):
    other = write_tiny_checkpoint(tmp_path / "o", "qwen2", n_embd=64)
    with pytest.raises(QuantError, match=r"n_embd = 128 in .* and 64 in"):
        compare(models[0], other, IDS)


class Page(HTMLParser):
    """All attributes of all tags, the tags that are still open, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def data(self, name: str) -> list[str]:
        return [attrs[f"data-{name}"] for _, attrs in self.found if f"data-{name}" in attrs]


def test_the_page_is_well_formed_and_carries_the_numbers(found):
    parsed = Page(page(found))
    assert not parsed.open
    assert float(parsed.data("perplexity")[0]) == found.predictions.perplexity_quantized
    assert float(parsed.data("kl-mean")[0]) == found.predictions.kl_mean
    assert [float(v) for v in parsed.data("sqnr")] == [layer.sqnr_db for layer in found.layers]
    assert [float(v) for v in parsed.data("error")] == [layer.output_error for layer in found.layers]
    assert parsed.data("name") == [layer.name for layer in found.layers]
    assert sum(tag == "svg" for tag, _ in parsed.found) == 2 + 6 + len(found.layers)
    sources = [a[k] for _, a in parsed.found for k in ("src", "href") if k in a]
    assert not sources and not any(tag == "script" for tag, _ in parsed.found)


def test_names_cannot_become_markup(found):
    hostile = replace(found, text="<script>alert(1)</script>", notes=("<b>",))
    assert "<script>" not in page(hostile) and "<b>&lt;" not in page(hostile)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [3e-9, 7e5], [-3.0, 40.0], [None, float("inf")]])
def test_charts_hold_any_values(values):
    for log in (False, True):
        text = figures.chart({"a": values}, "label", log)
        assert "nan" not in text and "inf" not in text


def test_the_command_writes_the_page_and_json(models, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20)
    said = ["report", *map(str, models), "--text", str(text), "--samples", "2", "--seq-len", "32"]
    assert main([*said, "-o", str(tmp_path / "r.html")]) == 0
    out = capsys.readouterr()
    assert "bits a parameter, perplexity" in out.out and out.err == ""  # no terminal, no bar
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([*said, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["layers"][-1]["sqnr_db"] is None and numbers["predictions"]["tokens"] > 20
    assert main([*said, "-o", str(tmp_path / "missing" / "r.html")]) == 1
    assert "missing is no folder, expected one to put the page into" in capsys.readouterr().err


def test_a_browser_draws_the_page(found, tmp_path):
    """Colours of the charts are on the picture, and it is not blank at the bottom of what a window shows."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed: nothing can draw the page")
    (tmp_path / "r.html").write_text(page(found), encoding="utf-8")
    picture = tmp_path / "r.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=700,900"]
    command = [browser, *options, f"--user-data-dir={tmp_path}", f"--screenshot={picture}", f"file://{tmp_path}/r.html"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    pixels = decoded(picture.read_bytes())
    assert pixels.shape == (900, 700, 3)
    colours = set(np.unique(pixels.astype(int) @ [1 << 16, 1 << 8, 1]).tolist())
    assert {0x1F6FD0, 0xD9770A} <= colours  # two of the chart's lines
    assert len(np.unique(pixels[700:].reshape(-1, 3), axis=0)) > 1


def decoded(png: bytes) -> np.ndarray:
    """(height, width, 3) of an 8-bit RGB or RGBA PNG without interlace."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        data += png[at + 8 : at + 8 + length] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    assert depth == 8 and kind in (2, 6)
    channels = 3 if kind == 2 else 4
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    above, lines = bytes(width * channels), []
    for row in raw:
        above = unfiltered(int(row[0]), row[1:].tobytes(), above, channels)
        lines.append(np.frombuffer(above, np.uint8).reshape(width, channels)[:, :3])
    return np.stack(lines)


def unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    """One row by the filters of PNG: None, Sub, Up, Average, Paeth."""
    if kind == 0:
        return line
    out = bytearray(len(line))
    for i, value in enumerate(line):
        b = above[i]
        a, c = (out[i - channels], above[i - channels]) if i >= channels else (0, 0)
        if kind == 4:
            pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - c - c)
            guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
        else:
            guess = (a, b, (a + b) // 2)[kind - 1]
        out[i] = (value + guess) & 255
    return bytes(out)
