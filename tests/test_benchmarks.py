"""The benchmarks, without llama.cpp: random models, type mixes, worker processes, the maths of reports."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_tiny_model

from benchmarks import against_llama_cpp, divergence, random_model, worker
from benchmarks.comparison import Comparison, Spread, alternate, ratio
from benchmarks.comparison_report import Report, Surroundings
from benchmarks.first_token import FirstToken
from benchmarks.footprint import Footprint
from benchmarks.shapes import MIXTURES, SHAPES, Experts, Shape
from benchmarks.type_mix import MIXES, matrix_type
from benchmarks.worker import Worker
from refquant import gguf
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError
from refquant.models import ModelConfig, Oracle, check_tensors
from refquant.text import Tokenizer
from runtime import Model
from runtime.resident_memory import ResidentMemory

SIZES = {"n_vocab": 700, "bpe_tokens": 600, "n_ctx": 512}
MINIATURES = {
    "narrow": replace(SHAPES["qwen2.5-0.5b"], n_layer=3, n_embd=7 * 32, n_ff=256, n_head=7, n_head_kv=1, **SIZES),
    "wide": replace(SHAPES["qwen2.5-1.5b"], n_layer=3, n_embd=256, n_ff=512, n_head=4, n_head_kv=2, **SIZES),
    "llama": replace(SHAPES["llama-3.2-1b"], n_layer=2, n_embd=256, n_ff=256, n_head=8, n_head_kv=2, **SIZES),
    "untied": replace(
        SHAPES["llama-3.2-1b"], n_layer=1, n_embd=256, n_ff=256, n_head=4, n_head_kv=4, tied=False, **SIZES
    ),
}
SMALL = {"n_layer": 2, "n_embd": 256, "n_head": 4, "n_head_kv": 2, **SIZES}
MIXED = {
    "qwen1.5-moe-a2.7b": replace(MIXTURES["qwen1.5-moe-a2.7b"], experts=Experts(6, 2, 96, 256), **SMALL),
    "qwen3-30b-a3b": replace(MIXTURES["qwen3-30b-a3b"], experts=Experts(8, 3, 256, 0), key_length=32, **SMALL),
}


def types_of(path: Path, axes: int = 2) -> dict[str, str]:
    with gguf.open(path) as file:
        return {name: tensor.type for name, tensor in file.tensors.items() if len(tensor.shape) == axes}


# Sizes of the published models: the sum of all weights, as their cards give it.
@pytest.mark.parametrize(
    "name, count",
    [
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("llama-3.2-1b", 1_235_814_400),
        ("qwen1.5-moe-a2.7b", 14_315_784_192),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_shapes_have_the_parameters_of_the_published_models(name, count):
    tensors = {name: dims for name, dims, _ in random_model._tensors((SHAPES | MIXTURES)[name], "F16")}
    tensors.pop("rope_freqs.weight", None)
    assert sum(np.prod(dims, dtype=np.int64) for dims in tensors.values()) == count


def test_q4_k_m_is_laid_out_as_llama_quantize_does():
    types = {name: kind for name, _, kind in random_model._tensors(SHAPES["qwen2.5-1.5b"], "Q4_K_M")}
    more = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]
    for role in ("attn_v", "ffn_down"):
        assert [i for i in range(28) if types[f"blk.{i}.{role}.weight"] == "Q6_K"] == more
    assert types["token_embd.weight"] == "Q6_K"
    assert types["blk.0.attn_q.weight"] == types["blk.3.attn_v.weight"] == "Q4_K"


@pytest.mark.parametrize(
    "mix, role, n_in, layer, kind",
    [
        ("Q4_0", "token_embd", 1536, 0, "Q6_K"),
        ("Q4_0", "token_embd", 896, 0, "Q8_0"),
        ("Q4_0", "ffn_down", 896, 0, "Q4_0"),
        ("Q8_0", "token_embd", 1536, 0, "Q8_0"),
        ("Q4_K_M", "attn_q", 896, 0, "Q5_0"),
        ("Q4_K_M", "attn_v", 896, 0, "Q8_0"),
        ("Q5_K_M", "attn_q", 896, 0, "Q5_1"),
        ("Q6_K", "attn_q", 896, 0, "Q8_0"),
        ("IQ4_XS", "attn_v", 1536, 9, "Q5_K"),
        ("IQ4_XS", "ffn_down", 1536, 2, "Q5_K"),
        ("IQ4_XS", "ffn_down", 1536, 3, "IQ4_XS"),
        ("IQ4_XS", "attn_q", 896, 3, "IQ4_NL"),
        ("BF16", "token_embd", 896, 0, "BF16"),
    ],
)
def test_mixes_follow_llama_quantize(mix, role, n_in, layer, kind):
    assert matrix_type(mix, role, n_in, layer, n_layer=28, n_group=6, tied=True) == kind


def test_an_untied_embedding_is_an_ordinary_matrix():
    assert matrix_type("Q4_0", "token_embd", 256, 0, 1, 1, tied=False) == "Q4_0"
    assert matrix_type("Q4_0", "output", 256, 0, 1, 1, tied=False) == "Q6_K"
    assert matrix_type("IQ4_XS", "attn_v", 256, 9, 28, n_group=2, tied=False) == "IQ4_XS"


def test_an_unknown_mix_is_refused():
    with pytest.raises(SchemeError, match="Q9_0"):
        matrix_type("Q9_0", "attn_q", 256, 0, 1, 1, True)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", MINIATURES)
def test_random_models_open_with_the_types_of_their_mix(tmp_path, name, mix):
    shape = MINIATURES[name]
    path = random_model.random_model(shape, mix, tmp_path)
    types = {n: kind for n, dims, kind in random_model._tensors(shape, mix) if len(dims) == 2}
    assert types_of(path) == types
    with gguf.open(path) as file:
        config = ModelConfig.from_metadata(file)
        assert check_tensors(file, config) == []
        assert (config.n_layer, config.n_embd, config.n_vocab) == (shape.n_layer, shape.n_embd, shape.n_vocab)
        assert config.tied_output == shape.tied
        assert file.metadata["general.file_type"] == MIXES[mix].file_type
        for tensor in file.tensors.values():
            if len(tensor.shape) == 2:
                x = gguf.dequantize(tensor.data, tensor.type)
                assert abs(x.mean()) < 0.1 * x.std()
                assert x.std() == pytest.approx(tensor.shape[1] ** -0.5, rel=0.1)
        logits = Oracle(file).logits(np.arange(4))
        assert 0.1 < logits.std() < 10


@pytest.mark.parametrize("name", ["narrow", "llama"])
def test_random_models_run(tmp_path, name):
    path = random_model.random_model(MINIATURES[name], "Q8_0", tmp_path)
    with Model.load(path, n_ctx=64, threads=1, kv_dtype="f32") as model, gguf.open(path) as file:
        ids = model.tokenizer.encode("the quick brown fox", add_special=True)
        got, ref = model.logits(ids), Oracle(file).logits(ids)
        assert np.abs(got - ref).mean() < 0.1 * ref.std()


@pytest.mark.parametrize("name", MIXED)
def test_random_mixtures_run_and_spread_over_their_experts(tmp_path, name):
    path, seen = random_model.random_model(MIXED[name], "Q4_K_M", tmp_path), set()
    kinds = types_of(path, 3)
    assert kinds["blk.0.ffn_gate_exps.weight"] == "Q4_K"
    assert kinds["blk.1.ffn_down_exps.weight"] == ("Q8_0" if name.startswith("qwen1.5") else "Q6_K")  # 96 and 256 wide
    ids = np.arange(40)
    with gguf.open(path) as file:
        config = ModelConfig.from_metadata(file)
        assert check_tensors(file, config) == []
        ref = Oracle(file).logits(ids, tap=lambda matrix, x: seen.add(matrix))
    used = [matrix for matrix in seen if matrix.startswith("blk.1.ffn_up_exps.weight[")]
    assert len(used) > config.mixture.n_used
    assert 0.1 < ref.std() < 10
    with Model.load(path, n_ctx=64, threads=1, kv_dtype="f32") as model:
        assert np.abs(model.logits(ids) - ref).mean() < 0.1 * ref.std()


def test_the_same_model_has_the_same_bytes_and_is_made_once(tmp_path):
    shape = MINIATURES["wide"]
    one, two = (random_model.random_model(shape, "Q4_K_M", tmp_path / name) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    made = one.stat().st_mtime_ns
    assert random_model.random_model(shape, "Q4_K_M", tmp_path / "a") == one
    assert one.stat().st_mtime_ns == made
    assert [p.name for p in (tmp_path / "a").iterdir()] == [one.name]


def test_a_file_of_another_recipe_is_made_anew(tmp_path, monkeypatch):
    shape = MINIATURES["wide"]
    path = random_model.random_model(shape, "Q8_0", tmp_path)
    made = path.stat().st_mtime_ns
    monkeypatch.setattr(random_model, "RECIPE", random_model.RECIPE + 1)
    assert random_model.random_model(shape, "Q8_0", tmp_path).stat().st_mtime_ns > made


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(path):
        raise OSError("disk full")

    monkeypatch.setattr(random_model, "_fill", fails)
    with pytest.raises(OSError, match="disk full"):
        random_model.random_model(MINIATURES["wide"], "Q8_0", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_slabs_have_bytes_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(random_model, "SLAB", 4096)
    path = random_model.random_model(MINIATURES["wide"], "Q8_0", tmp_path)
    with gguf.open(path) as file:
        data = file.tensors["token_embd.weight"].data
        assert len(np.unique(data, axis=0)) == len(data)


@pytest.mark.parametrize("name", ["narrow", "llama"])
def test_the_vocabulary_reads_and_writes_text(tmp_path, name):
    shape = MINIATURES[name]
    with gguf.open(random_model.random_model(shape, "Q8_0", tmp_path)) as file:
        tokenizer = Tokenizer.from_gguf(file)
    text = "the quick brown fox, été 123 \n"
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(tokenizer.token_text(256), add_special=False) == [256]  # merges apply
    assert tokenizer.vocab_size == shape.n_vocab
    assert tokenizer.add_bos == (shape.arch == "llama")
    assert tokenizer.is_control(tokenizer.eos)
    assert tokenizer.warnings == ()


def test_llama3_divisors_are_those_of_the_published_scaling():
    got = random_model._llama3_divisors(32, 500000.0)
    ref = []
    for i in range(32):
        wavelength = 2 * np.pi * 500000.0 ** (i / 32)
        smooth = (8192 / wavelength - 1) / (4 - 1)
        ref.append(1 if wavelength < 8192 / 4 else 32 if wavelength > 8192 else 1 / ((1 - smooth) / 32 + smooth))
    np.testing.assert_allclose(got, ref, rtol=1e-6)
    assert got[0] == 1
    assert got[-1] == 32


def test_the_command_prints_paths(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(random_model.SHAPES, "qwen2.5-0.5b", MINIATURES["narrow"])
    assert random_model.main(["qwen2.5-0.5b", "Q4_0", "--layers", "1", "--folder", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == "qwen2.5-0.5b-1L-Q4_0.gguf"
    assert path.exists()
    assert random_model.main(["qwen2.5-0.5b", "Q4_0", "--layers", "0"]) == 2


# Workers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("bench") / "m.gguf", arch="llama")


def test_our_worker_measures_and_answers_with_logits(tiny):
    with worker.ours() as ours:
        assert ours.ask("about")["engine"] == "refquant"
        assert ours.ask("load", path=str(tiny), threads=1, n_ctx=64, kv="f32")["seconds"] > 0
        ours.ask("prepare", n_prompt=4, n_gen=0, n_depth=8)
        assert ours.ask("run")["seconds"] > 0
        assert ResidentMemory(**ours.ask("memory")).peak != 0
        answer = ours.ask("logits", ids=[1, 2, 3])
        got = np.frombuffer(answer["raw"], np.float32).reshape(answer["shape"])
        with gguf.open(tiny) as file:
            np.testing.assert_allclose(got, Oracle(file).logits([1, 2, 3]), atol=1e-3)
        assert ours.ask("first_token", path=str(tiny), threads=1, ids=[1, 2], n_ctx=64)["token"] >= 0


def test_a_refusal_is_an_error_here_and_the_worker_lives_on(tmp_path):
    with worker.ours() as ours:
        with pytest.raises(QuantError, match=r"our_worker: load: GGUFError.*none\.gguf"):
            ours.ask("load", path=str(tmp_path / "none.gguf"), threads=1, n_ctx=64, kv="f16")
        assert ours.ask("about")["engine"] == "refquant"


def test_a_worker_that_dies_is_an_error(tiny):
    with worker.ours() as ours:
        ours._process.kill()
        with pytest.raises(QuantError, match="ended with status -9"):
            ours.ask("about")


def test_a_missing_llama_cpp_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "llama_cpp.py").write_text("raise ImportError('not here')")
    start = Worker

    def without(script, python=None, variables=None):
        return start(script, python, {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(worker.ROOT)])})

    monkeypatch.setattr(worker, "Worker", without)
    assert against_llama_cpp.main([]) == 2
    err = capsys.readouterr().err
    assert "llama_cpp cannot be imported" in err
    assert "not here" in err
    assert "--llama-python" in err
    assert err.count("\n") == 1


def test_a_python_that_does_not_exist_is_one_line(tmp_path, capsys):
    assert against_llama_cpp.main(["--llama-python", str(tmp_path / "python")]) == 2
    err = capsys.readouterr().err
    assert "No such file" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["-p", "0", "-n", "0"], ["-t", "0"], ["-d", "-1"], ["-r", "0"], ["--types", "Q9"], ["--shapes", "x"], ["-p", "a"]],
)
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        against_llama_cpp.main(arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


# The maths of the report


class Scripted:
    """A worker whose runs take what a list says, and that burns `cpu` seconds while the other one runs."""

    def __init__(self, seconds, log, name, cpu=0.0):
        self.seconds, self.log, self.name, self.cpu, self.burnt = iter(seconds), log, name, cpu, 0.0

    def ask(self, do):
        self.log.append(self.name)
        return {"seconds": next(self.seconds)}

    def cpu_seconds(self):
        self.burnt += self.cpu
        return self.burnt


def test_engines_take_turns_and_a_busy_paused_one_is_seen(monkeypatch):
    monkeypatch.setattr("benchmarks.comparison.SETTLE", 0)
    log = []
    ours, theirs = Scripted([1, 2, 4], log, "A"), Scripted([2, 2, 2], log, "B", cpu=0.5)
    a, b, idle = alternate(ours, theirs, 3, lambda done: None)
    assert log == ["A", "B"] * 3
    assert (a, b) == ([1, 2, 4], [2, 2, 2])
    assert idle == 50  # of the first run, which took a second


def test_ratios_are_of_neighbours():
    assert ratio([10, 20, 90], [10, 10, 30]) == Spread(2, 1, 3)
    with pytest.raises(RangeError, match="pairs"):
        ratio([1], [1, 2])
    with pytest.raises(RangeError, match="no samples"):
        ratio([], [])


COMPARISON = Comparison("m.gguf", 1 << 30, 2, "tg8", (10.0, 30.0, 20.0), (10.0, 10.0, 10.0), 10**9, 40e9, 0.5)


def test_a_comparison_knows_ratio_and_bandwidth():
    assert COMPARISON.ratio == Spread(2, 1, 3)
    assert COMPARISON.of_read == (50, 25)
    assert replace(COMPARISON, traffic_bytes=0).of_read is None


def test_a_footprint_counts_what_the_layers_take():
    one = ResidentMemory(300, 200, 100)
    footprint = Footprint("m", "refquant", 1000, 100, ResidentMemory(1), ResidentMemory(1290, 900, 390), one, 200, 0)
    assert footprint.ratio == (1290 - 300) / (1000 - 200 + 100)
    assert replace(footprint, one_layer=None).ratio is None
    assert replace(footprint, used=ResidentMemory()).ratio is None


def test_the_report_has_its_tables_in_both_forms(tmp_path):
    about = {"version": "1.2", "settings": "flash attention auto"}
    report = Report(Surroundings.here(about, about), 3, [COMPARISON], {"m.gguf": {1: 20e9, 2: 40e9}})
    report.first_tokens.append(FirstToken("m.gguf", 2, (1.0, 2.0, 3.0), (2.0,) * 3, (0.5,) * 3, (1.0,) * 3, 25.0))
    report.footprints.append(Footprint("m.gguf", "refquant", 1 << 30, 1 << 20, ResidentMemory(), ResidentMemory()))
    report.write(tmp_path / "r.md", tmp_path / "r.json")
    markdown, data = (tmp_path / "r.md").read_text("utf-8"), json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert "| 20.0 (10.0-30.0) | 10.0 (10.0-10.0) | 2.00 (1.00-3.00) | 50 %, 25 % |" in markdown
    assert "| m.gguf |       2 | 40.0 |" in markdown
    assert "2.00 (1.00-3.00)" in markdown
    assert data["comparisons"][0]["ratio"] == {"median": 2, "least": 1, "largest": 3}
    assert data["first_tokens"][0]["ours_cold"] == 25
    assert data["surroundings"]["cores"] >= 1


# Divergence


def test_kl_divergence_is_the_sum_over_the_vocabulary():
    rng = np.random.default_rng(0)
    p, q = (rng.normal(0, 3, (5, 11)).astype(np.float32) for _ in range(2))
    soft = lambda x: np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True)
    ref = np.sum(soft(p) * np.log(soft(p) / soft(q)), -1)
    got = divergence.kl_divergence(p, q)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, ref, rtol=1e-9)
    np.testing.assert_array_equal(divergence.kl_divergence(p, p), 0)
    np.testing.assert_allclose(divergence.kl_divergence(p + 500, q - 500), ref, rtol=1e-4)  # float32 rounds p + 500
    with pytest.raises(ShapeError):
        divergence.kl_divergence(p, q[:, :3])


def test_the_bootstrap_covers_the_ratio_and_narrows_with_windows():
    rng = np.random.default_rng(1)
    widths = []
    for windows in (20, 2000):
        theirs = rng.uniform(1, 2, windows)
        ours = 1.1 * theirs + rng.normal(0, 0.1, windows)
        low, high = divergence.bootstrap(ours, theirs, np.random.default_rng(0))
        assert low < 1.1 < high
        widths.append(high - low)
    assert widths[1] < 0.2 * widths[0]
    assert divergence.bootstrap(theirs * 2, theirs, rng) == (2, 2)
    with pytest.raises(ShapeError):
        divergence.bootstrap(theirs, theirs[:3], rng)


def test_windows_are_spread_over_the_text_without_overlap():
    ids = list(range(100))
    got = divergence.cut(ids, 4, 10, None)
    assert [len(w) for w in got] == [10] * 4
    assert got[0][0] == 0
    assert got[-1][-1] == 99
    assert len({i for window in got for i in window}) == 40
    assert [w[0] for w in divergence.cut(ids, 11, 10, bos=7)] == [7] * 11
    for windows, length in ((11, 10), (0, 10), (1, 0)):
        with pytest.raises(RangeError, match="expected"):
            divergence.cut(ids, windows, length, None)


def test_the_divergence_of_a_worker_from_itself_has_ratio_one(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", arch="qwen2", types="Q8_0")
    windows = [[1, 5, 9, 2], [3, 3, 8, 1], [0, 7, 7, 4]]
    with worker.ours() as one, worker.ours() as two:
        got = divergence.divergence(path, windows, "f16", 1, one, two)
    assert got.ours == got.theirs > 0
    assert (got.ratio, got.above, got.below) == (1, 1, 1)
    assert got.tokens == 12
    assert got.ours_top == got.theirs_top > 0
    assert "1.0000-1.0000" in divergence.as_markdown([got])


def test_shapes_are_records():
    assert all(isinstance(shape, Shape) and name == shape.name for name, shape in SHAPES.items())
