"""The GGUF file of a folder: numbers, order of rows, tokenizer, types, and the logits that it gives."""

import json

import numpy as np
import pytest
from tiny_checkpoints import CLASSES, write_tiny_checkpoint

from refquant import gguf
from refquant.errors import QuantError, SchemeError, UnsupportedError
from refquant.gguf.file_types import Choices
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, open_checkpoint
from refquant.text.tokenizer import Tokenizer


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_every_architecture_becomes_a_model_that_runs(tmp_path, kind):
    convert_to_gguf(write_tiny_checkpoint(tmp_path / "m", kind), tmp_path / "m.gguf", "F32")
    with gguf.open(tmp_path / "m.gguf") as file:
        oracle = Oracle(file)
        assert oracle.warnings == []
        assert np.isfinite(oracle.logits([1, 2, 3])).all()


def test_rows_of_queries_and_keys_change_places_in_a_llama_and_nowhere_else(tmp_path):
    for kind, moves in (("llama", True), ("qwen2", False)):
        source = open_checkpoint(write_tiny_checkpoint(tmp_path / kind, kind))
        convert_to_gguf(source, tmp_path / "m.gguf", "F32")
        with gguf.open(tmp_path / "m.gguf") as file:
            got = {name: np.array(tensor.data) for name, tensor in file.tensors.items()}
        for part, heads in (("q", 4), ("k", 2), ("v", 0)):
            ref = source.weight(f"model.layers.0.self_attn.{part}_proj.weight")
            if moves and heads:
                order = [h * 16 + i + half * 8 for h in range(heads) for i in range(8) for half in (0, 1)]
                ref = ref[order]
            np.testing.assert_array_equal(got[f"blk.0.attn_{part}.weight"], ref, err_msg=f"{kind} {part}")


def test_experts_are_stacked_in_their_order(tmp_path):
    for kind, name in (("qwen3_moe", "mlp.experts.{}.down_proj"), ("mixtral", "block_sparse_moe.experts.{}.w2")):
        source = open_checkpoint(write_tiny_checkpoint(tmp_path / kind, kind))
        convert_to_gguf(source, tmp_path / "m.gguf", "F32")
        with gguf.open(tmp_path / "m.gguf") as file:
            got = file.tensors["blk.1.ffn_down_exps.weight"].data
            assert got.shape == (4, 64, 96)
            for e in range(4):
                np.testing.assert_array_equal(got[e], source.weight(f"model.layers.1.{name.format(e)}.weight"))


@pytest.mark.parametrize("file_type", ["F16", "BF16", "Q8_0", "Q4_0", "NVFP4"])
def test_matrices_get_the_type_and_vectors_stay_float32(tmp_path, file_type):
    folder = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_ff=128)
    convert_to_gguf(folder, tmp_path / "m.gguf", file_type, choices=Choices(pure=True))
    source = open_checkpoint(folder)
    with gguf.open(tmp_path / "m.gguf") as file:
        got = file.tensors["blk.0.ffn_down.weight"]
        assert got.type == file_type
        ref = gguf.quantize(source.weight("model.layers.0.mlp.down_proj.weight"), file_type)
        np.testing.assert_array_equal(np.array(got.data).reshape(-1).view(np.uint8), ref.reshape(-1).view(np.uint8))
        assert {t.type for n, t in file.tensors.items() if len(t.shape) == 1} == {"F32"}


def test_a_mix_chooses_as_the_table_of_file_types_does(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m", n_embd=256, n_ff=256)
    convert_to_gguf(folder, tmp_path / "m.gguf", "q4_k_m")
    with gguf.open(tmp_path / "m.gguf") as file:
        types = {name: tensor.type for name, tensor in file.tensors.items()}
        assert file.metadata["general.file_type"] == 15
    assert (types["blk.0.attn_q.weight"], types["output.weight"], types["blk.0.attn_norm.weight"]) == (
        "Q4_K",
        "Q6_K",
        "F32",
    )


def test_an_encoder_of_the_table_replaces_ours(tmp_path):
    asked = []

    def encode(x, imatrix=None):
        asked.append(x.shape)
        return gguf.quantize(x, "Q8_0", imatrix)

    folder = write_tiny_checkpoint(tmp_path / "m")
    convert_to_gguf(folder, tmp_path / "a.gguf", "Q8_0")
    convert_to_gguf(folder, tmp_path / "b.gguf", "Q8_0", encoders={"Q8_0": encode})
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert len(asked) == 16


def test_few_bits_need_importance(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m", n_embd=256, n_ff=256)
    with pytest.raises(UnsupportedError, match="importance = none"):
        convert_to_gguf(folder, tmp_path / "m.gguf", "IQ2_XXS")
    assert not (tmp_path / "m.gguf").exists()


def test_an_unknown_type_names_what_is_known(tmp_path):
    with pytest.raises(SchemeError, match="Q4_K_M"):
        convert_to_gguf(write_tiny_checkpoint(tmp_path / "m"), tmp_path / "m.gguf", "Q4_K_X")


def test_a_failure_leaves_no_file(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m")

    def fail(*_):
        raise QuantError("stopped")

    with pytest.raises(QuantError, match="stopped"):
        convert_to_gguf(folder, tmp_path / "m.gguf", "F32", progress=fail)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_progress_counts_every_weight(tmp_path):
    seen = []
    folder = write_tiny_checkpoint(tmp_path / "m")
    convert_to_gguf(folder, tmp_path / "m.gguf", "F32", progress=lambda *what: seen.append(what))
    done = [n for _, n, _ in seen]
    assert done == sorted(done) and seen[-1][1] == seen[-1][2] == open_checkpoint(folder).parameters


def test_the_tokenizer_of_the_file_gives_the_ids_of_the_folder(tmp_path):
    from tokenizers import Tokenizer as Theirs

    text = "the command with that file\n  prints 42 options, and \u00e4 path"
    for kind in ("llama", "qwen2"):
        folder = write_tiny_checkpoint(tmp_path / kind, kind)
        convert_to_gguf(folder, tmp_path / "m.gguf", "F16")
        with gguf.open(tmp_path / "m.gguf") as file:
            got = Tokenizer.from_gguf(file).encode(text)
            assert file.metadata["tokenizer.chat_template"]
        assert got == Theirs.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_special_tokens_come_from_the_tokenizer_and_then_from_the_model(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m", "qwen2", bos_token_id=7, eos_token_id=8)
    convert_to_gguf(folder, tmp_path / "m.gguf", "F16")
    with gguf.open(tmp_path / "m.gguf") as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert file.metadata["tokenizer.ggml.eos_token_id"] == tokens.index("<|im_end|>")
        assert file.metadata["tokenizer.ggml.bos_token_id"] == 7
        assert file.metadata["tokenizer.ggml.token_type"][tokens.index("<|im_end|>")] == 3


def test_ids_without_a_token_are_padding(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m", "qwen2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    convert_to_gguf(folder, tmp_path / "m.gguf", "F16")
    with gguf.open(tmp_path / "m.gguf") as file:
        last = len(file.metadata["tokenizer.ggml.tokens"]) - 1
        assert file.metadata["tokenizer.ggml.tokens"][last] == f"[PAD{last}]"
        assert file.metadata["tokenizer.ggml.token_type"][last] == 5


def test_a_missing_tokenizer_is_named_unless_none_is_wanted(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(QuantError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        convert_to_gguf(folder, tmp_path / "m.gguf", "F16")
    convert_to_gguf(folder, tmp_path / "m.gguf", "F16", with_vocabulary=False)
    with gguf.open(tmp_path / "m.gguf") as file:
        assert not [key for key in file.metadata if key.startswith("tokenizer")]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t["model"].update(type="WordPiece"), "model.type = 'WordPiece'"),
        (lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="x+"), r"pre_tokenizer = 'x\+'"),
        (lambda t: t["model"]["vocab"].update(far=100000), "id of 'far' = 100000"),
        (lambda t: t["model"].update(merges=[["a"]]), "expected two strings"),
        (lambda t: t["model"].update(merges=[]), "merges is empty"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(tmp_path, change, message):
    folder = write_tiny_checkpoint(tmp_path / "m", "qwen2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(QuantError, match=message):
        convert_to_gguf(folder, tmp_path / "m.gguf", "F16")


def test_the_scaling_of_rope_is_told(tmp_path):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    convert_to_gguf(write_tiny_checkpoint(tmp_path / "y", "qwen2", rope_scaling=yarn), tmp_path / "y.gguf", "F16")
    with gguf.open(tmp_path / "y.gguf") as file:
        scaling = Oracle(file).config.rope_scaling
        assert (scaling.kind, scaling.factor, scaling.original_context) == ("yarn", 4.0, 64)


def test_the_divisors_of_llama_3_are_one_then_a_ramp_then_the_factor(tmp_path):
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3 |= {"original_max_position_embeddings": 64}
    folder = write_tiny_checkpoint(tmp_path / "l", rope_scaling=llama3)
    convert_to_gguf(folder, tmp_path / "l.gguf", "F16")
    with gguf.open(tmp_path / "l.gguf") as file:
        got = np.array(file.tensors["rope_freqs.weight"].data)
        assert np.isfinite(Oracle(file).logits([1, 2, 3])).all()
    ref = []
    for i in range(8):
        w = 2 * np.pi * 10000 ** (2 * i / 16)
        t = (64 / w - 1) / 3
        ref.append(1.0 if w < 16 else 8.0 if w > 64 else 1 / ((1 - t) / 8 + t))
    assert got.dtype == np.float32 and ref[0] == 1 and ref[-1] == 8 and 1 < ref[1] < 8
    np.testing.assert_allclose(got, ref, rtol=1e-6)


def test_the_shared_models_give_the_tensors_and_tokens_of_their_own_files(shared, tmp_path):
    convert_to_gguf(shared("models/tiny-qwen2"), tmp_path / "m.gguf", "BF16", name="tiny")
    with gguf.open(tmp_path / "m.gguf") as got, gguf.open(shared("models/tiny-qwen2-Q4_K_M.gguf")) as ref:
        assert list(got.tensors) == list(ref.tensors)
        for key, value in ref.metadata.items():
            if key.startswith("tokenizer.") and "add_" not in key:
                np.testing.assert_array_equal(got.metadata[key], value, err_msg=key)
        for name, tensor in ref.tensors.items():
            if tensor.type == "F32":
                np.testing.assert_array_equal(got.tensors[name].data, tensor.data, err_msg=name)
        assert got.metadata["general.name"] == "tiny"


def test_a_post_processor_decides_what_is_added_to_a_text_before_the_settings_do(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "m", "qwen2")
    tokenizer, settings = (json.loads((folder / f"tokenizer{end}.json").read_text()) for end in ("", "_config"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": True}))
    for processor, added in ((None, True), ({"type": "ByteLevel"}, False)):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": processor}))
        convert_to_gguf(folder, tmp_path / "m.gguf", "F32")
        with gguf.open(tmp_path / "m.gguf") as file:
            assert file.metadata["tokenizer.ggml.add_bos_token"] is added
            assert file.metadata["general.size_label"] == "102K"
