import json

import naive_model
import numpy as np
import pytest
from llama_cpp_logits import CASES, FIXTURE
from tiny_models import write_tiny_model

from refquant import gguf as container
from refquant.errors import GGUFError, NonFiniteError, RangeError, ShapeError
from refquant.models import Oracle, rope

IDS = [5, 200, 17, 17, 3, 99, 250, 0]
SMALL = {"n_layer": 1, "n_embd": 16, "n_ff": 24, "n_head": 4, "n_head_kv": 2}
YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 16}
TOYS = {
    "llama": {"arch": "llama"},
    "llama, tied, three heads a group": {"arch": "llama", "tied": True, "n_head": 6, "head_dim": 4},
    "llama, rope_freqs, fused, biases": {"arch": "llama", "rope_freqs": True, "fused_qkv": True, "biases": True},
    "llama, linear": {"arch": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
    "qwen2": {"arch": "qwen2"},
    "qwen2, half of each head rotates": {"arch": "qwen2", "extra": {"qwen2.rope.dimension_count": ("u32", 2)}},
    "qwen3, values shorter than keys": {"arch": "qwen3", "head_dim": 12, "head_dim_v": 8},
    "qwen3, yarn": {"arch": "qwen3", "head_dim": 16, "rope_scaling": YARN},
    "llama, experts": {"arch": "llama", "experts": 5},
    "qwen2moe": {"arch": "qwen2moe", "experts": 6, "experts_used": 3, "n_ff_shared": 16},
    "qwen3moe": {"arch": "qwen3moe", "experts": 4, "experts_used": 1, "head_dim": 8},
    "attention scale": {"arch": "llama", "extra": {"llama.attention.scale": ("f32", 0.125)}},
}


def naive_logits(gguf, config, ids):
    """Scores of the witness, from the tensors of the file with fused rows cut by hand."""
    w = {name: container.dequantize(t.data, t.type).astype(np.float64) for name, t in gguf.tensors.items()}
    cuts = [config.n_head * config.head_dim, (config.n_head + config.n_head_kv) * config.head_dim]
    for name in [name for name in w if "attn_qkv" in name]:
        w |= {name.replace("qkv", part): x for part, x in zip("qkv", np.split(w.pop(name), cuts))}
    freqs = w.pop("rope_freqs.weight", None)
    m = {
        "n_layer": config.n_layer, "n_head": config.n_head, "n_head_kv": config.n_head_kv, "eps": config.rms_eps,
        "scale": config.attn_scale, "rope_dim": config.rope_dim, "base": config.rope_base, "style": config.rope_style,
        "kind": config.rope_scaling.kind, "factor": config.rope_scaling.factor, "mscale": rope.mscale(config),
        "original_context": config.rope_scaling.original_context, "freqs": None if freqs is None else freqs.tolist(),
        "n_used": config.mixture.n_used if config.mixture else 0,
        "normalized": config.mixture is not None and config.mixture.normalized,
    }  # fmt: skip
    return naive_model.logits(m, {name: x.tolist() for name, x in w.items()}, ids)


@pytest.fixture
def tiny(tmp_path):
    """Open tiny models; all are closed at the end."""
    files = []

    def open_tiny(**case):
        files.append(container.open(write_tiny_model(tmp_path / f"{len(files)}.gguf", **case)))
        return files[-1]

    yield open_tiny
    for file in files:
        file.close()


@pytest.mark.parametrize("name", TOYS)
def test_the_logits_are_those_of_plain_python(tiny, name):
    gguf = tiny(**(SMALL | TOYS[name]))
    oracle = Oracle(gguf, dtype=np.float64)
    ref = naive_logits(gguf, oracle.config, IDS)
    np.testing.assert_allclose(oracle.logits(IDS), ref, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_logits_are_those_of_llama_cpp(tiny, name, dtype):
    fixture = json.loads(FIXTURE.read_text())
    got = Oracle(tiny(**CASES[name]), dtype).logits(fixture["ids"])[fixture["rows"], :: fixture["every"]]
    np.testing.assert_allclose(got, fixture["logits"][name], rtol=0, atol=2e-4)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("arch", ["llama", "qwen2moe", "qwen3moe"])
def test_taps_see_each_expert_with_the_tokens_that_chose_it(tiny, arch, keep):
    gguf, seen = tiny(arch=arch, experts=6, experts_used=2, n_layer=1), {}
    oracle = Oracle(gguf, keep=keep)
    ref = oracle.logits(IDS)
    np.testing.assert_array_equal(oracle.logits(IDS, tap=lambda name, x: seen.__setitem__(name, x.copy())), ref)
    for part in ("gate", "up", "down"):
        names = [name for name in seen if name.startswith(f"blk.0.ffn_{part}_exps.weight[")]
        assert sum(len(seen[name]) for name in names) == 2 * len(IDS)
        assert {name.rpartition("[")[2] for name in names} <= {f"{e}]" for e in range(6)}
    assert ("blk.0.ffn_up_shexp.weight" in seen) == (arch == "qwen2moe")
    assert np.abs(oracle.logits(IDS, tap=lambda name, x: 0 * x if "up_exps" in name else None) - ref).max() > 0.1


def test_experts_may_have_a_scale_each(tiny, tmp_path):
    plain = tiny(arch="llama", experts=4)
    tensors = {name: (t.data, t.type) for name, t in plain.tensors.items()}
    scales = np.array([1, 2, 0.5, 4], np.float32)
    by_hand = dict(tensors)
    for layer, part in np.ndindex(2, 3):
        name = f"blk.{layer}.ffn_{('gate', 'up', 'down')[part]}_exps"
        by_hand[f"{name}.weight"] = (tensors[f"{name}.weight"][0] * scales[:, None, None], "F32")
        tensors[f"{name}.scale"] = (scales, "F32")
    for path, content in (("scaled.gguf", tensors), ("by_hand.gguf", by_hand)):
        container.write(tmp_path / path, plain.metadata, content, types=plain.types)
    with container.open(tmp_path / "scaled.gguf") as got, container.open(tmp_path / "by_hand.gguf") as ref:
        np.testing.assert_allclose(Oracle(got).logits(IDS), Oracle(ref).logits(IDS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_float32_stays_close_to_float64(tiny, arch):
    gguf = tiny(arch=arch)
    got, ref = (Oracle(gguf, dtype).logits(IDS) for dtype in (np.float32, np.float64))
    assert got.dtype == np.float32 and ref.dtype == np.float64
    assert 0 < np.abs(got - ref).max() < 1e-4


@pytest.mark.parametrize("chunks", [[1] * 8, [3, 5], [7, 1], [2, 2, 4]])
@pytest.mark.parametrize("kv_dtype", [np.float32, np.float16])
def test_a_prompt_read_in_chunks_gives_the_same_logits(tiny, chunks, kv_dtype):
    oracle = Oracle(tiny(arch="qwen2"), np.float64, kv_dtype)
    cache, parts, start = oracle.new_cache(), [], 0
    for tokens in chunks:
        parts.append(oracle.logits(IDS[start : start + tokens], cache))
        start += tokens
        assert cache.position == start
    # float16: a rounding difference in the last bit of float64 may move a stored key by half a float16 unit
    atol = 1e-11 if kv_dtype == np.float32 else 1e-2
    np.testing.assert_allclose(np.concatenate(parts), oracle.logits(IDS), rtol=0, atol=atol)


def test_a_truncated_cache_continues_from_there(tiny):
    oracle = Oracle(tiny(arch="qwen3"), np.float64)
    cache = oracle.new_cache()
    oracle.logits([1, 2, 3, 4, 5], cache)
    cache.truncate(3)
    got = oracle.logits([7, 8], cache)
    np.testing.assert_allclose(got, oracle.logits([1, 2, 3, 7, 8])[3:], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kv_dtype, least, most", [(np.float16, 1e-5, 0.1), ("q8_0", 1e-3, 1.0)])
def test_rounded_keys_and_values_change_the_logits_a_little(tiny, kv_dtype, least, most):
    gguf = tiny(arch="llama")
    ref, got = Oracle(gguf).logits(IDS), Oracle(gguf, kv_dtype=kv_dtype).logits(IDS)
    assert got.dtype == np.float32
    assert least < np.abs(got - ref).max() < most


def test_only_the_last_row_on_request(tiny):
    oracle = Oracle(tiny())
    got = oracle.logits(IDS, last=True)
    assert got.shape == (1, oracle.config.n_vocab)
    np.testing.assert_allclose(got, oracle.logits(IDS)[-1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K"])
def test_a_quantized_model_is_the_model_of_its_decoded_weights(tiny, tmp_path, type_name):
    gguf = tiny(types=type_name, n_embd=256, n_ff=256)
    decoded = {name: (container.dequantize(t.data, t.type), "F32") for name, t in gguf.tensors.items()}
    container.write(tmp_path / "f32.gguf", gguf.metadata, decoded, types=gguf.types)
    with container.open(tmp_path / "f32.gguf") as floats:
        np.testing.assert_array_equal(Oracle(gguf).logits(IDS), Oracle(floats).logits(IDS))


def test_keeping_decoded_weights_changes_nothing(tiny):
    gguf = tiny(types="Q8_0")
    np.testing.assert_array_equal(Oracle(gguf, keep=False).logits(IDS), Oracle(gguf, keep=True).logits(IDS))


@pytest.mark.parametrize("tied, last", [(True, "token_embd.weight"), (False, "output.weight")])
def test_taps_see_the_input_of_every_matrix(tiny, tied, last):
    gguf = tiny(arch="qwen3", n_layer=2, head_dim=32, tied=tied)
    oracle, seen = Oracle(gguf), []
    logits = oracle.logits(IDS, tap=lambda name, X: seen.append((name, X)))
    parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    assert [name for name, _ in seen] == [f"blk.{layer}.{part}.weight" for layer in (0, 1) for part in parts] + [last]
    for name, X in seen:
        assert X.shape == (len(IDS), gguf.tensors[name].shape[1]) and X.dtype == np.float32
    np.testing.assert_array_equal(seen[-1][1] @ gguf.tensors[last].data.T, logits)


def test_scales_and_every_bias_take_part(tiny, tmp_path):
    plain = tiny(**SMALL)
    rng = np.random.default_rng(0)
    tensors = {name: (t.data, t.type) for name, t in plain.tensors.items()}
    for name in [name.removesuffix(".weight") for name, t in plain.tensors.items() if len(t.shape) == 2]:
        if name != "token_embd":
            rows = plain.tensors[f"{name}.weight"].shape[0]
            tensors[f"{name}.bias"] = rng.normal(size=rows).astype(np.float32), "F32"
            tensors[f"{name}.scale"] = rng.uniform(0.5, 1.5, 1).astype(np.float32), "F32"
    container.write(tmp_path / "full.gguf", plain.metadata, tensors, types=plain.types)
    with container.open(tmp_path / "full.gguf") as gguf:
        oracle = Oracle(gguf, np.float64)
        ref = naive_logits(gguf, oracle.config, IDS)
        output = {kind: container.dequantize(gguf.tensors[f"output.{kind}"].data, "F32") for kind in ("scale", "bias")}
        np.testing.assert_allclose(oracle.logits(IDS), ref * output["scale"] + output["bias"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("ids, error, message", [
    ([], ShapeError, r"ids.shape = \(0,\), expected \(tokens,\) with at least one token"),
    ([[1, 2]], ShapeError, r"ids.shape = \(1, 2\)"),
    (7, ShapeError, r"ids.shape = \(\)"),
    ([1, -1], RangeError, r"ids are in -1\.\.1, expected 0\.\."),
    ([1, 10**6], RangeError, r"ids are in 1\.\.1000000, expected 0\.\."),
    ([2**80], RangeError, "ids are object, expected integers"),
    ([1.0], RangeError, "ids are float64, expected integers"),
    ([True], RangeError, "ids are bool, expected integers"),
])  # fmt: skip
def test_what_is_not_a_token_id_is_refused(tiny, ids, error, message):
    oracle = Oracle(tiny())
    cache = oracle.new_cache()
    with pytest.raises(error, match=message):
        oracle.logits(ids, cache)
    assert cache.position == 0


def test_a_cache_of_another_model_is_refused(tiny):
    one, other = Oracle(tiny()), Oracle(tiny(n_layer=3))
    for cache in (other.new_cache(), Oracle(tiny(), np.float64).new_cache()):
        with pytest.raises(ShapeError, match="cache is another model's"):
            one.logits(IDS, cache)


@pytest.mark.parametrize("options, message", [
    ({"dtype": np.float16}, "dtype = float16, expected float32 or float64"),
    ({"kv_dtype": np.int8}, "kv_dtype = int8, expected float32 or float16"),
])  # fmt: skip
def test_other_dtypes_are_refused(tiny, options, message):
    with pytest.raises(RangeError, match=message):
        Oracle(tiny(), **options)


def test_weights_that_overflow_give_an_error_and_no_warning(tiny, tmp_path):
    plain = tiny()
    tensors = {name: (t.data, t.type) for name, t in plain.tensors.items()}
    tensors["output.weight"] = np.full(plain.tensors["output.weight"].shape, 3e38, np.float32), "F32"
    container.write(tmp_path / "huge.gguf", plain.metadata, tensors, types=plain.types)
    with container.open(tmp_path / "huge.gguf") as gguf:
        oracle = Oracle(gguf)
        cache = oracle.new_cache()
        with pytest.raises(NonFiniteError, match=r"Oracle.logits: logits.flat\[\d+\] = (-?inf|nan)"):
            oracle.logits(IDS, cache)
        assert cache.position == 0


def test_a_file_that_is_not_a_model_is_refused(tiny, shared):
    with (
        container.open(shared("tokenizers/ggml-vocab-llama-spm.gguf")) as gguf,
        pytest.raises(GGUFError, match=r"token_embd\.weight is missing"),
    ):
        Oracle(gguf)


def test_a_published_model_tells_a_story(shared):
    with container.open(shared("models/stories260K-f32.gguf")) as gguf:
        oracle, ids, text = Oracle(gguf), [1, 403, 407, 261, 378], ""
        cache, pieces = oracle.new_cache(), gguf.metadata["tokenizer.ggml.tokens"]
        for _ in range(16):
            new = ids if cache.position == 0 else ids[-1:]
            ids.append(int(oracle.logits(new, cache, last=True)[0].argmax()))
            text += pieces[ids[-1]]
    assert text.replace("▁", " ") == ", there was a little girl named Lily. She loved to play"
