"""Which type each tensor gets: llama.cpp's choices for published models and for small ones, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from llama_quantize import models, types_digest, write_model
from model_inventories import inventories

from refquant import gguf
from refquant.errors import RangeError, SchemeError, UnsupportedError
from refquant.gguf.file_types import (
    ALIASES,
    FILE_TYPES,
    Choices,
    Model,
    file_order,
    is_quantized,
    lookup,
    more_bits,
    needs_imatrix,
    select,
)

RECORDED = json.loads((Path(__file__).parent / "llama_quantize.json").read_text())
MODEL = Model("llama", 8, 1)


def types(tensors, name, model=MODEL, choices=None, **options):
    ordered = {tensor: (tensors[tensor], "F32") for tensor in sorted(tensors, key=file_order)}
    return select(ordered, lookup(name), model, choices, **options)


@pytest.mark.parametrize("name", [name for name, *_ in inventories()])
def test_published_models_get_the_types_of_llama_cpp(name):
    model, matrices = next((model, matrices) for other, model, matrices in inventories() if other == name)
    recorded = RECORDED["snapshots"][name]
    assert len(recorded) == 33
    assert {file_type: types_digest(types(matrices, file_type, model)) for file_type in recorded} == recorded


@pytest.mark.parametrize("name", [name for name, *_ in models()])
def test_every_rule_gives_the_type_of_llama_cpp(tmp_path, name):
    imatrix = write_model(tmp_path / "m.gguf", name)
    assert set(RECORDED["models"][name]) == set(FILE_TYPES)
    with gguf.open(tmp_path / "m.gguf") as file:
        model = Model.from_metadata(file.metadata)
        shapes = {tensor: t.shape for tensor, t in file.tensors.items()}
    for file_type, ref in RECORDED["models"][name].items():
        if file_type == "Q1_0" and shapes["token_embd.weight"][-1] % 128:
            assert ref is None
            with pytest.raises(UnsupportedError, match="expected a multiple of 128 for Q1_0"):
                types(shapes, file_type, model)
            continue
        got = types(shapes, file_type, model, has_imatrix=imatrix is not None)
        if ref is None:  # refused for want of importance
            assert any(needs_imatrix(tensor, type, lookup(file_type)) for tensor, type in got.items()), file_type
        else:
            assert types_digest(got) == ref["types"], file_type


TENSORS = {
    "token_embd.weight": (8, 256),
    "output.weight": (8, 256),
    "blk.0.attn_v.weight": (8, 256),
    "blk.0.ffn_down.weight": (8, 256),
    "blk.0.attn_norm.weight": (256,),
}


def test_choices_come_before_the_rules():
    chosen = Choices("Q8_0", "Q5_0", ((re.compile("ffn_d"), "Q2_K"), (re.compile("ffn"), "F16")))
    got = types(TENSORS, "Q4_K_M", choices=chosen)
    assert got == {
        "token_embd.weight": "Q5_0", "output.weight": "Q8_0", "blk.0.attn_v.weight": "Q6_K",
        "blk.0.ffn_down.weight": "Q2_K", "blk.0.attn_norm.weight": "F32",
    }  # fmt: skip
    tied = {name: shape for name, shape in TENSORS.items() if name != "output.weight"}
    assert types(tied, "Q4_K_M", choices=Choices("Q8_0"))["token_embd.weight"] == "Q8_0"


def test_pure_gives_every_matrix_the_base_type():
    got = types(TENSORS, "Q4_K_M", choices=Choices(pure=True))
    assert set(got.values()) == {"Q4_K", "F32"}
    assert got["blk.0.attn_norm.weight"] == "F32"


def test_the_output_can_be_left_as_it_is():
    assert types(TENSORS, "Q4_0", choices=Choices(leave_output=True))["output.weight"] == "F32"


def test_a_scalar_file_type_knows_no_rules():
    assert set(types(TENSORS, "BF16").values()) == {"BF16", "F32"}


@pytest.mark.parametrize("shape, name, quantized", [
    ((8, 256), "blk.0.ffn_up.weight", True), ((256,), "blk.0.ffn_up.weight", False),
    ((1, 256), "blk.0.ffn_up.weight", False), ((2, 1, 256), "blk.0.ffn_up_exps.weight", True),
    ((8, 256), "blk.0.ffn_up.bias", False), ((8, 256), "blk.0.ffn_gate_inp.weight", False),
    ((8, 256), "blk.0.attn_q_norm.weight", False), ((8, 256), "position_embd.weight", False),
    ((8, 256), "v.position_embd.weight", False), ((8, 256), "blk.0.ssm_conv1d.weight", False),
])  # fmt: skip
def test_what_is_no_matrix_of_weights_takes_no_part(shape, name, quantized):
    assert is_quantized(name, shape, "llama") is quantized


def test_tensors_are_visited_layer_by_layer_and_by_name():
    names = ["blk.10.a", "blk.2.b", "output.weight", "blk.2.a", "Z", "blk.x"]
    assert sorted(names, key=file_order) == ["Z", "blk.x", "output.weight", "blk.2.a", "blk.2.b", "blk.10.a"]


def test_file_types_are_found_by_name_alias_and_number():
    assert lookup("q4_k").name == lookup("15").name == "Q4_K_M"
    assert {lookup(alias).name for alias in ALIASES} == set(ALIASES.values())
    assert len({file_type.number for file_type in FILE_TYPES.values()}) == len(FILE_TYPES)
    with pytest.raises(SchemeError, match=r"file type = 'Q4_K_X', expected one such as .*Q4_K_M"):
        lookup("Q4_K_X")


def test_more_layers_are_the_first_the_last_and_every_third_between():
    assert [i for i in range(28) if more_bits(i, 28)] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]
    assert [i for i in range(4) if more_bits(i, 4)] == [2, 3]


def test_facts_come_from_metadata():
    metadata = {"general.architecture": "llama", "llama.block_count": 80, "llama.attention.head_count": 64}
    assert Model.from_metadata(metadata) == Model("llama", 80, 1)  # 65B: as many key heads
    metadata["llama.attention.head_count_kv"] = np.array([8, 0], np.int32)
    assert Model.from_metadata(metadata) == Model("llama", 80, 8, is_70b=True)
    metadata["llama.attention.head_count_kv"] = np.array([0, 8], np.int32)
    assert Model.from_metadata(metadata).n_group == 0


@pytest.mark.parametrize("metadata, message", [
    ({}, "'general.architecture' = None, expected a name"),
    ({"general.architecture": "llama"}, "'llama.block_count' = None, expected a number"),
    ({"general.architecture": "x", "x.block_count": -1}, "'x.block_count' = -1"),
    ({"general.architecture": "x", "x.block_count": True}, "'x.block_count' = True"),
])  # fmt: skip
def test_absurd_facts_are_refused(metadata, message):
    with pytest.raises(RangeError, match=message):
        Model.from_metadata(metadata)


def test_a_layer_beyond_those_of_the_model_is_refused():
    with pytest.raises(RangeError, match=r"tensor 'blk.9.ffn_down_exps.weight': layer, expected blk.0 to blk.7"):
        types({"blk.9.ffn_down_exps.weight": (4, 8, 256)}, "Q4_K_M", Model("llama", 8, 1, n_expert=4))
