"""Model: logits against the NumPy oracle, determinism, refusals, threads and generators side by side."""

import threading

import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.errors import ContextFullError, GGUFError, RangeError, ShapeError
from refquant.models import Oracle
from runtime import Model, Session
from runtime.graph import Graph
from runtime.kernels import PRODUCTS, activations, bf16

IDS = np.random.default_rng(7).integers(0, 260, 40)

SHAPES = [
    {"arch": "llama"},
    {"arch": "llama", "rope_freqs": True, "tied": True},
    {"arch": "llama", "n_head": 4, "n_head_kv": 1, "head_dim": 24, "head_dim_v": 16},
    {"arch": "llama", "fused_qkv": True},
    {"arch": "qwen2"},
    {"arch": "qwen2", "n_head": 8, "n_head_kv": 8, "tied": True},
    {"arch": "qwen3", "head_dim": 32},
    {"arch": "qwen3", "rope_scaling": {"type": "yarn", "factor": 4.0, "original_context_length": 64}},
    {"arch": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"arch": "llama", "experts": 8},
    {"arch": "qwen2moe", "experts": 6, "experts_used": 3, "n_ff": 40},
    {"arch": "qwen3moe", "experts": 40, "experts_used": 8, "head_dim": 32},
]


def name_of(shape: dict) -> str:
    return "-".join(str(value) for value in shape.values()).replace(" ", "")


KV_DTYPES = {"f32": (np.float32, 1e-3), "f16": (np.float16, 2e-2), "q8_0": ("q8_0", 0.3)}


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_logits_of_float_models_are_those_of_the_oracle(tmp_path, shape, kv_dtype):
    path = write_tiny_model(tmp_path / "m.gguf", **shape)
    with Model.load(path, kv_dtype=kv_dtype) as model, gguf.open(path) as file:
        got = model.logits(IDS)
        stored, atol = KV_DTYPES[kv_dtype]
        ref = Oracle(file, kv_dtype=stored).logits(IDS)
        assert got.dtype == np.float32
        assert got.shape == ref.shape
        # A last-bit difference before the rounding of K and V can move a value by a whole step of their type.
        np.testing.assert_allclose(got, ref, rtol=0, atol=atol)
        assert np.abs(got - ref).mean() < atol / 20
        np.testing.assert_array_equal(model.logits(IDS, last=True), got[-1:])


@pytest.mark.parametrize("types", ["F16", "F32"])
def test_float_types_give_the_logits_of_the_oracle(tmp_path, types):
    path = write_tiny_model(tmp_path / "m.gguf", arch="qwen2", types=types)
    with Model.load(path, kv_dtype="f32") as model, gguf.open(path) as file:
        np.testing.assert_allclose(model.logits(IDS), Oracle(file).logits(IDS), rtol=0, atol=1e-3)
        assert model.notices == ()


@pytest.mark.parametrize("types", sorted(name for name, product in PRODUCTS.items() if product.form))
def test_other_types_are_the_oracle_with_activations_rounded_as_their_kernels_read_them(tmp_path, types):
    size = {"n_embd": 256, "n_ff": 256} if gguf.FORMATS[types].values > 32 else {}
    path = write_tiny_model(tmp_path / "m.gguf", arch="llama", types=types, **size)
    with Model.load(path, kv_dtype="f32") as model, gguf.open(path) as file:
        exact, rounded = Oracle(file).logits(IDS), Oracle(file).logits(IDS, tap=rounded_to(PRODUCTS[types].form))
        got = model.logits(IDS)
        assert model.notices == ()
        # A sum in another order can move an activation across the border between two codes; where that happens early
        # the rest of the computation carries it on, but it is one rounding among thousands.
        rounding = np.abs(rounded - exact)
        assert rounding.max() > 0.01
        assert np.abs(got - rounded).mean() <= 0.6 * rounding.mean()
        assert np.abs(got - exact).max() <= 1.25 * rounding.max()


def rounded_to(form: int):
    """What a matmul kernel sees of x."""
    if form == activations.BF16:
        return lambda _, x: (bf16.encode_numpy(x).astype(np.uint32) << 16).view(np.float32)
    twin, block = {
        activations.Q8_0: (activations.q8_0_numpy, 32),
        activations.Q8_K: (activations.q8_k_numpy, 256),
    }[form]

    def tap(_: str, x: np.ndarray) -> np.ndarray:
        codes, e, _, _ = twin(x)
        return (codes.reshape(len(x), -1, block) * e[..., None]).reshape(x.shape)

    return tap


@pytest.mark.parametrize("arch", ["llama", "qwen2moe", "qwen3moe"])
def test_experts_without_a_kernel_run_the_slow_path_with_a_scale_each(tmp_path, arch, monkeypatch):
    monkeypatch.delitem(PRODUCTS, "Q5_1")
    types = lambda name: "Q5_1" if "exps" in name else "F16"
    plain = write_tiny_model(tmp_path / "plain.gguf", arch=arch, types=types, experts=4)
    with gguf.open(plain) as file:
        tensors = {name: (tensor.data, tensor.type) for name, tensor in file.tensors.items()}
        tensors["blk.1.ffn_up_exps.scale"] = (np.array([1, 2, 0.5, 3], np.float32), "F32")
        gguf.write(tmp_path / "m.gguf", file.metadata, tensors, types=file.types)
    with Model.load(tmp_path / "m.gguf", kv_dtype="f32") as model, gguf.open(tmp_path / "m.gguf") as file:
        np.testing.assert_allclose(model.logits(IDS), Oracle(file).logits(IDS), rtol=0, atol=1e-3)
        assert [notice.partition(" has")[0] for notice in model.notices] == ["Q5_1", "scaled Q5_1"]


def test_a_type_without_a_kernel_runs_the_slow_path_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.delitem(PRODUCTS, "Q5_1")
    path = write_tiny_model(tmp_path / "m.gguf", arch="llama", types="Q5_1")
    with Model.load(path, kv_dtype="f32") as model, gguf.open(path) as file:
        np.testing.assert_allclose(model.logits(IDS), Oracle(file).logits(IDS), rtol=0, atol=1e-3)
        assert len(model.notices) == 1
        assert model.notices[0].startswith("Q5_1 has no fast kernel")
    assert sum("Q5_1" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("kv_dtype", ["f16", "q8_0"])
@pytest.mark.parametrize("arch, experts, types", [("qwen3", 0, "Q8_0"), ("qwen2moe", 7, "Q4_K"), ("llama", 4, "F32")])
def test_logits_do_not_depend_on_threads_or_on_how_the_prompt_is_cut(tmp_path, arch, experts, types, kv_dtype):
    size = {"n_embd": 256, "n_ff": 512, "n_ff_shared": 256}
    path = write_tiny_model(tmp_path / "m.gguf", arch=arch, types=types, experts=experts, **size)
    options = {"kv_dtype": kv_dtype}
    with Model.load(path, threads=1, **options) as one, Model.load(path, threads=3, **options) as three:
        ref = one.logits(IDS)
        np.testing.assert_array_equal(three.logits(IDS).view(np.uint32), ref.view(np.uint32))
        for cuts in ([1] * 40, [39, 1], [3, 17, 20]):
            session, got, done = Session(three), [], 0
            for n in cuts:
                got.append(session.read_all(IDS[done : done + n]))
                done += n
            np.testing.assert_array_equal(np.concatenate(got).view(np.uint32), ref.view(np.uint32))


def test_logits_are_made_for_the_tokens_that_want_them(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.engine.BATCH", 16)  # 40 ids are parts of 16, 16 and 8
    heads = []
    prompt = Graph.prompt
    monkeypatch.setattr(Graph, "prompt", lambda self, *call: heads.append(call[-1]) or prompt(self, *call))
    with Model.load(write_tiny_model(tmp_path / "m.gguf", types="Q8_0")) as model:
        ref = model.logits(IDS)
        for wanted, by_part in ((40, [16, 16, 8]), (10, [0, 2, 8]), (1, [0, 0, 1]), (0, [0, 0, 0])):
            heads.clear()
            got = model.step(np.array(IDS), Session(model).cache, 0, wanted)
            assert heads == by_part
            np.testing.assert_array_equal(got.view(np.uint32), ref[40 - wanted :].view(np.uint32))
        for wanted in (0, 1):
            assert model.step(np.array(IDS[:1]), Session(model).cache, 0, wanted).shape == (wanted, ref.shape[1])
        heads.clear()
        monkeypatch.setattr("runtime.session.FIRST_SLICE", 8)
        Session(model).prefill(IDS[:32])
        assert heads[-1] == 1 and set(heads[:-1]) == {0}


def test_nothing_is_compiled_after_loading(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", arch="qwen3", types="Q8_0")
    with Model.load(path) as model:
        needed = Graph.kernels(model.config, model.weights, "f16")
        assert all("code" in vars(function) for function in needed)
        before = {name for name, product in PRODUCTS.items() if "code" in vars(product.matvec)}
        model.logits(IDS)
        list(model.generate(IDS[:3], 4))
        assert all("code" in vars(f) for program in model._engine.graph._programs for f in program.kernels)
        assert {name for name, product in PRODUCTS.items() if "code" in vars(product.matvec)} == before


def test_progress_names_stages_and_ends_at_the_total(tmp_path):
    path, seen = write_tiny_model(tmp_path / "m.gguf", types="Q8_0"), []
    with Model.load(path, progress=lambda *call: seen.append(call)) as model:
        for stage in ("load", "compile"):
            calls = [call for call in seen if call[0] == stage]
            assert calls[-1][1] == calls[-1][2] == max(call[2] for call in calls)
        seen.clear()
        Session(model).prefill(IDS, lambda *call: seen.append(call))
        assert seen[-1] == ("prompt", 40, 40)
        assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


@pytest.mark.parametrize(
    "ids, error, words",
    [
        ([], ShapeError, "at least one"),
        ([[1, 2]], ShapeError, "shape"),
        ([0, -1], RangeError, r"ids\[1\] = -1, expected 0\.\."),
        ([10**6], RangeError, r"ids\[0\] = 1000000"),
        ([2**70], RangeError, "object"),
        ([1.5], RangeError, "float64"),
        (["a"], RangeError, "expected integers"),
        ([True], RangeError, "bool"),
    ],
)
def test_invalid_ids_are_refused(tmp_path, ids, error, words):
    with Model.load(write_tiny_model(tmp_path / "m.gguf")) as model:
        for call in (model.logits, lambda ids: model.generate(ids, 3), Session(model).prefill):
            with pytest.raises(error, match=words):
                call(ids)
        assert issubclass(error, ValueError)


def test_a_prompt_longer_than_the_context_is_refused_and_a_full_context_is_said(tmp_path):
    with Model.load(write_tiny_model(tmp_path / "m.gguf"), n_ctx=8) as model:
        with pytest.raises(ContextFullError, match="9 ids, expected at most 8"):
            model.logits(IDS[:9])
        with pytest.raises(ContextFullError, match="9 tokens, expected at most 8"):
            model.generate(IDS[:9], 1)
        written = []
        with pytest.raises(ContextFullError, match="full"):
            for token in model.generate(IDS[:5], 10, temperature=0, stop_at_eog=False):
                written.append(token)
        assert len(written) == 4  # the fourth is drawn from the logits after position 7, the last there is
        assert model.logits(IDS[:8]).shape[0] == 8


@pytest.mark.parametrize("argument", [{"n_ctx": 0}, {"n_ctx": 10**9}, {"threads": 0}, {"kv_dtype": "q4_0"}])
def test_wrong_arguments_are_refused(tmp_path, argument):
    path = write_tiny_model(tmp_path / "m.gguf")
    with pytest.raises(RangeError, match=next(iter(argument))):
        Model.load(path, **argument)


def test_zero_sized_tensors_are_refused(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf")
    with gguf.open(path) as file:
        tensors = {name: (tensor.data, tensor.type) for name, tensor in file.tensors.items()}
        tensors["blk.0.ffn_up.weight"] = (np.zeros((0, 64), np.float32), "F32")
        gguf.write(tmp_path / "zero.gguf", file.metadata, tensors, types=file.types)
    with pytest.raises(GGUFError, match=r"blk\.0\.ffn_up\.weight"):
        Model.load(tmp_path / "zero.gguf")


def test_a_session_reuses_the_common_prefix_and_gives_the_same_bits(tmp_path):
    with Model.load(write_tiny_model(tmp_path / "m.gguf", types="Q8_0")) as model:
        session, read = Session(model), []
        session.prefill(IDS[:20])
        ref = model.logits(np.concatenate([IDS[:12], IDS[30:40]]), last=True)[0]
        got = session.prefill(np.concatenate([IDS[:12], IDS[30:40]]), lambda *call: read.append(call))
        assert read[-1] == ("prompt", 10, 10)
        np.testing.assert_array_equal(got, ref)
        np.testing.assert_array_equal(session.prefill(session.tokens), ref)
        np.testing.assert_array_equal(session.append(5), model.logits([*session.tokens], last=True)[0])
        session.truncate(4)
        assert session.position == 4
        for wrong in (-1, 5):
            with pytest.raises(RangeError, match="truncate"):
                session.truncate(wrong)


def test_an_interrupted_prompt_leaves_the_session_usable(tmp_path):
    with Model.load(write_tiny_model(tmp_path / "m.gguf")) as model:

        def interrupt(stage: str, done: int, total: int) -> None:
            if done >= 16:
                raise KeyboardInterrupt

        session = Session(model)
        session._slice = 16
        with pytest.raises(KeyboardInterrupt):
            session.prefill(IDS, interrupt)
        assert 0 < session.position < 40
        np.testing.assert_array_equal(session.prefill(IDS), model.logits(IDS, last=True)[0])


def test_generators_and_threads_may_be_mixed(tmp_path):
    first = write_tiny_model(tmp_path / "a.gguf", seed=1, types="Q8_0")
    second = write_tiny_model(tmp_path / "b.gguf", seed=2, arch="qwen2", types="Q8_0")
    options = {"temperature": 0, "stop_at_eog": False}
    with Model.load(first) as a, Model.load(second) as b:
        ref_a, ref_b = list(a.generate(IDS[:4], 20, **options)), list(b.generate(IDS[:4], 20, **options))
        mixed = zip(
            a.generate(IDS[:4], 20, **options), a.generate(IDS[:4], 20, **options), b.generate(IDS[:4], 20, **options)
        )
        assert list(mixed) == list(zip(ref_a, ref_a, ref_b))
        got: dict[int, list[int]] = {}
        write = lambda i, model: got.__setitem__(i, list(model.generate(IDS[:4], 20, **options)))
        threads = [threading.Thread(target=write, args=(i, (a, b)[i % 2])) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {i: (ref_a, ref_b)[i % 2] for i in range(6)}


def test_a_seed_makes_generation_repeatable(tmp_path):
    with Model.load(write_tiny_model(tmp_path / "m.gguf", types="Q8_0")) as model:
        draw = lambda seed: list(model.generate(IDS[:4], 12, temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed))
        assert draw(1) == draw(1)
        assert len({tuple(draw(seed)) for seed in range(5)}) > 1


def test_a_closed_model_says_so(tmp_path):
    model = Model.load(write_tiny_model(tmp_path / "m.gguf"))
    model.close()
    model.close()
    with pytest.raises(ValueError, match="closed"):
        model.logits(IDS)
