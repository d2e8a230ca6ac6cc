"""The results page of the methods: the engine against the oracle, resuming, verdicts, the page and the plot."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from benchmarks.quality import claims, layers, measure, network, page, plot, results, rows, text
from benchmarks.quality.__main__ import main
from benchmarks.quality.fits import Task, fit
from benchmarks.quality.layer_claims import CLAIMS, OPEN
from benchmarks.quality.measure import Judge
from benchmarks.quality.rows import ROWS, Row
from benchmarks.quality.text import Text
from refquant import gguf, hadamard
from refquant.errors import QuantError
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf

FLOAT = Row("Float", "BF16", "float")
SHAPES = {"n_embd": 64, "n_ff": 128}


@pytest.fixture(scope="module", params=["qwen2", "llama", "qwen3"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return write_tiny_checkpoint(folder, kind=request.param, tied=request.param != "llama", **SHAPES)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("judged") / "model", kind="llama", **SHAPES)
    ids = np.random.default_rng([20, 64]).integers(3, 200, (80, 24))
    return Judge(network.open_network(folder), Text(ids[:7], ids[16:], skipped=8))


def test_the_network_says_what_the_oracle_says(checkpoint, tmp_path):
    ids = np.random.default_rng([5, 2]).integers(0, 200, (3, 20))
    model = network.open_network(checkpoint)
    convert_to_gguf(checkpoint, tmp_path / "m.gguf", "F32", with_vocabulary=False)
    got = network.hidden_states(model, ids) @ model.head.T
    with gguf.open(tmp_path / "m.gguf") as file:
        ref = np.stack([Oracle(file).logits(one) for one in ids])
    assert np.abs(ref - got).max() <= 1e-5 * np.abs(ref).max()


@pytest.mark.parametrize("kind, tied", [("qwen2", True), ("llama", False)])
def test_a_rotated_network_is_the_same_function(kind, tied, tmp_path):
    ids = np.random.default_rng([5, 3]).integers(0, 200, (2, 16))
    model = network.open_network(write_tiny_checkpoint(tmp_path / "m", kind=kind, tied=tied, **SHAPES))
    turned = network.rotated(model, hadamard.orthogonal(64, np.random.default_rng(1)))
    ref, got = (network.hidden_states(one, ids) @ one.head.T for one in (model, turned))
    assert np.abs(ref - got).max() <= 1e-4 * np.abs(ref).max()
    assert np.abs(model.blocks[0]["mlp.up_proj.weight"] - turned.blocks[0]["mlp.up_proj.weight"]).max() > 0.01


def test_the_float_row_costs_nothing_and_scores_are_those_of_the_logits(judge):
    got = judge.measure(FLOAT)
    assert (got["bits"], got["ratio"], got["error"], got["layer_error"]) == (16, 1, 0, 0)
    assert abs(got["kl"]) < 1e-6
    logits = (network.hidden_states(judge.network, judge.text.judged) @ judge.network.head.T).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nll = [-log_p[w, t - 1, ids[t]] for w, ids in enumerate(judge.text.judged) for t in range(8, 24)]
    assert got["perplexity"] == pytest.approx(np.exp(np.mean(nll)), rel=1e-5)
    assert judge.text.scored == len(nll)


SCHEMES = {
    "gptq": "uint4-g32-f16", "awq": "uint4-g32-f16", "hqq": "uint4-g32-f16@hqq", "autoround": "uint4-g32-f16",
    "smoothquant": "int8-channel-restricted", "static": "int8-restricted", "nearest": "mxfp4",
    "llm_int8": "int8-channel", "gguf": "Q8_0",
}  # fmt: skip
OPTIONS = {"autoround": (("iterations", 3),)}


@pytest.mark.parametrize("method", [name for name in dict.fromkeys(row.method for row in ROWS) if name != "float"])
def test_every_method_quantizes_a_model_and_says_what_it_stores(method, judge):
    pruned = method not in SCHEMES
    options = (("pattern", None),) if pruned else OPTIONS.get(method, ())
    inputs = "int8-token" if method == "smoothquant" else "int8-restricted" if method == "static" else ""
    got = judge.measure(Row("", "", method, SCHEMES.get(method, ""), inputs, options))
    assert 0 < got["layer_error"] < (0.9 if pruned else 0.02)
    assert got["kl"] > 0
    bits = {"gptq": 4.625, "awq": 4.625, "hqq": 5, "autoround": 4.625, "nearest": 4.25, "gguf": 8.5}
    assert got["bits"] == pytest.approx(bits.get(method, 9 if pruned else 8.3), abs=0.3 if method not in bits else 1e-6)
    assert len(got["windows"]) == 7


def test_calibration_sees_the_outputs_of_what_was_quantized_before(judge):
    seen = {}

    def remember(task: Task):
        seen[task.stage, len(seen)] = task.X
        return fit(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "fit", remember)
        measure.quantized(judge.network, Row("", "", "gptq", "uint2-g32"), judge.text.calibration)
    exact = {}

    def products(i, stage, X):
        exact[stage, len(exact)] = X
        return network.exact(judge.network)(i, stage, X)

    network.hidden_states(judge.network, judge.text.calibration, products)
    differs = [not np.array_equal(seen[place], exact[place]) for place in exact]
    assert differs == [False] + 7 * [True]


def test_a_rotated_row_transforms_weights_and_inputs_alike(judge):
    row = Row("", "", "float", rotated=True)
    assert judge.measure(row)["layer_error"] < 1e-9


def test_layers_are_captured_with_what_feeds_them(judge):
    first, *_, last = layers.capture(judge.network, judge.text.calibration, (0, 1))
    assert (first.name, last.name) == ("block 0 self_attn.k_proj", "block 1 mlp.down_proj")
    assert first.keys.shape == (len(first.X), 2, 16)
    np.testing.assert_allclose(first.X @ first.W.T, first.keys.reshape(len(first.X), -1), rtol=1e-5, atol=1e-5)
    assert last.X.shape[1] == last.W.shape[1] == 128


def test_keys_of_rows_are_unique_and_orderings_name_rows():
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert {key for pair in (*claims.PAIRS, *claims.OPEN, *claims.EXCEPTIONS) for key in pair} <= set(keys)


def made_up(shift: float = 0.0) -> dict:
    """Results in which every row after the first loses a little more than the one before."""
    found = results.empty({"windows": 4, "tokens": 8, "scored": 16, "digests": {"a": "1", "b": "2"}})
    found["made"] = {"date": "2026-01-01", "machine": "2 cores", "versions": "Python 3"}
    for model in found["rows"]:
        ratios = {f"{c.less} < {c.more}": [0.5, 0.8] for c in (*CLAIMS, *OPEN)}
        line = {"layer": "one", "bits": 4, "tokens": 4096, "rtn": 0.3, "seen": 0.1, "held_out": 0.2}
        found["facts"][model] = {"ratios": ratios, "appetite": [line]}
        for n, row in enumerate(ROWS):
            loss = shift + 0.01 * n
            found["rows"][model][row.key] = {
                "bits": 16 - n / 10, "perplexity": 10 * np.exp(loss), "ratio": np.exp(loss), "error": 0.001,
                "kl": loss, "layer_error": loss / 10, "seconds": 1.0, "windows": [loss, loss + 0.001, loss - 0.001],
            }  # fmt: skip
    return found


def test_an_ordering_is_judged_by_its_paired_error():
    found = made_up()
    one, two = ROWS[1].key, ROWS[2].key
    assert {v.word for v in claims.verdicts(found, ((one, two),))} == {"holds"}
    assert {v.word for v in claims.verdicts(found, ((two, one),))} == {"BROKEN"}
    found["rows"]["a"][two]["windows"] = [0.0, 0.02, 0.013]
    assert [v.word for v in claims.verdicts(found, ((one, two),))] == ["unclear", "holds"]
    broken = claims.verdicts(found, ((two, one),))[1]
    assert replace(broken, exception="known").word == "exception"
    assert not replace(broken, exception="known").broken


def test_results_are_kept_for_the_same_setup_only(tmp_path):
    path, found = tmp_path / "r.json", made_up()
    results.write(found, path)
    assert results.resumed(found["setup"], path) == json.loads(path.read_text("utf-8"))
    assert results.resumed({**found["setup"], "windows": 5}, path)["rows"] == {"a": {}, "b": {}}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(QuantError, match="make quality"):
        results.read(path)


def test_the_page_has_every_row_and_names_what_is_missing():
    found = made_up()
    whole = page.page(found, claims.verdicts(found))
    assert "Not measured yet" not in whole
    assert "| GPTQ 4 bits | RTN 4 bits | output error | 0.6325 | 0.6325 | 4 of 4 |" in whole
    assert "| a | one | 4 | 4,096 | 0.10000 | 0.20000 | 0.30000 |" in whole
    for row in ROWS:
        assert f"| {row.label} | {row.weights or '16 bits'} |" in whole
    del found["rows"]["b"][ROWS[3].key]
    assert f"1 rows: `{ROWS[3].key}` (b)." in page.page(found, claims.verdicts(found))
    del found["rows"]["b"]["float"]
    assert "- **Float**: perplexity a 10.000." in page.page(found, claims.verdicts(found))


def test_the_committed_page_is_that_of_the_committed_results_which_break_no_ordering():
    found = results.read()
    verdicts = claims.verdicts(found)
    assert page.PATH.read_text("utf-8") == page.page(found, verdicts), "python -m benchmarks.quality --page"
    assert not [v.line for v in verdicts if v.broken]


def test_the_plot_is_the_same_bytes_each_time(tmp_path, peer):
    peer("matplotlib")
    for name in ("1.svg", "2.svg"):
        plot.write(made_up(), tmp_path / name)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    assert all(plot.series(name) for name in plot.STYLE)


def test_without_the_data_one_line_says_where_it_was_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(text.VARIABLE, str(tmp_path))
    assert main(["--rows", "float"]) == 2
    assert f"{tmp_path / 'text' / 'docs.txt'} is missing" in capsys.readouterr().err


def test_windows_are_spread_and_begin_with_bos():
    got = text.spread(np.arange(100), 4, 10, bos=None)
    assert got[:, 0].tolist() == [0, 30, 60, 90]
    assert text.spread(np.arange(100), 4, 10, bos=7)[:, :2].tolist() == [[7, 1], [7, 31], [7, 61], [7, 91]]
    with pytest.raises(QuantError, match="5 tokens, expected at least 4 windows of 10"):
        text.spread(np.arange(5), 4, 10, bos=None)


def test_the_test_models_and_their_text_are_read(shared):
    model = shared("models/tiny-llama")
    read = text.read_text(model, shared("text/docs.txt"))
    assert read.judged.shape == (text.WINDOWS, text.TOKENS)
    assert read.scored >= 4000
    assert set(read.judged[:, 0]) == {1}
    assert len({row.tobytes() for row in (*read.judged, *read.calibration)}) == text.WINDOWS + text.CALIBRATION
    assert all(row.calibration_windows <= text.CALIBRATION for row in rows.ROWS)
