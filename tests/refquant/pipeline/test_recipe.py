"""Recipes and the spellings of other frameworks."""

import json
import sys

import pytest
import yaml

from refquant.__main__ import main
from refquant.errors import SchemeError, UnsupportedError
from refquant.pipeline import recipe, spellings
from refquant.pipeline.recipe import read
from refquant.pipeline.spellings import explain
from refquant.schemes import parse


@pytest.mark.parametrize("name", sorted(spellings.NAMES))
def test_every_spelling_means_schemes_that_exist_and_makes_a_recipe(name):
    meaning = explain(name)
    if name == "W16A16":
        assert meaning.weights == "" and read(name).rounding("model.layers.0.mlp.up_proj") is None
        return
    assert parse(meaning.weights)
    assert not meaning.activations or parse(meaning.activations)
    assert read(name).rounding("model.layers.0.mlp.up_proj").weights == parse(meaning.weights)


@pytest.mark.parametrize(
    "said, weights, activations, layout",
    [
        ("W4A16", "int4-g128", "", "compressed-tensors"),
        ("w8a8", "int8-channel", "int8-token", "compressed-tensors"),
        ("int8", "int8-channel", "", "compressed-tensors"),
        ("nf4", "nf4", "", "bitsandbytes"),
        ("load_in_4bit", "bnb_fp4", "", "bitsandbytes"),
        ("q4_k_m", "Q4_K_M", "", "gguf"),
        ("int4-g64-asym", "int4-g64-asym", "", "compressed-tensors"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4", "", "bitsandbytes"),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "bnb_fp4-dq", "", "bitsandbytes"),
        ({"load_in_8bit": True}, "int8-token@bitsandbytes", "int8-token@bitsandbytes", "bitsandbytes"),
        ({"bits": 4, "group_size": 128, "sym": False}, "uint4-g128", "", "gptq"),
        ({"bits": 3, "group_size": -1}, "int3-channel", "", "gptq"),
        ({"w_bit": 4, "q_group_size": 64, "zero_point": True, "version": "GEMM"}, "uint4-g64", "", "awq-gemm"),
    ],
)
def test_what_users_say_in_our_words(said, weights, activations, layout):
    got = explain(said)
    assert (got.weights, got.activations, got.layout) == (weights, activations, layout)


def test_what_is_of_the_runtime_is_a_note():
    said = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16", "llm_int8_skip_modules": ["lm_head", "gate"]}
    got = explain(said)
    assert got.notes == ("bnb_4bit_compute_dtype is of the runtime: nothing of it is stored in the codes",)
    assert read(said).modifiers[0].ignore == ("lm_head", "gate")
    assert said["load_in_4bit"] is True


@pytest.mark.parametrize(
    "said, message",
    [
        ("W4A15", "W4A16"),
        ("nf5", "nf4"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "expected one of the two"),
        ({"load_in_4bit": True, "bnb_5bit": 1}, "bnb_5bit"),
        ({"bnb_4bit_compute_dtype": "bfloat16"}, "load_in_8bit = False, False, expected one of the two"),
        ("llm_int8_skip_modules", "is `ignore` of a recipe; expected beside load_in_4bit"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "nf5"),
        ({"bits": 9}, "bits, group_size = 9, 128"),
        ({"bits": 4, "descact": True}, "descact"),
        ({"speed": "high"}, "expected load_in_4bit"),
        (5, "expected a name"),
    ],
)
def test_unknown_spellings_name_what_is_near(said, message):
    with pytest.raises(SchemeError, match=message):
        explain(said)


@pytest.mark.parametrize(
    "pattern, name, wanted",
    [
        ("Linear", "model.layers.0.mlp.up_proj", True),
        ("lm_head", "lm_head", True),
        ("up_proj", "model.layers.0.mlp.up_proj", True),
        ("mlp.up_proj", "model.layers.0.mlp.up_proj", True),
        ("layers.1", "model.layers.10.mlp.up_proj", False),
        ("proj", "model.layers.0.mlp.up_proj", False),
        (r"re:.*down_proj$", "model.layers.0.mlp.down_proj", True),
        (r"re:down_proj", "model.layers.0.mlp.down_proj", False),
        (r"re:model\.layers\.[0-3]\.", "model.layers.3.mlp.up_proj", True),
    ],
)
def test_patterns_match_whole_parts_of_names_or_regexes(pattern, name, wanted):
    assert recipe.matches(name, pattern) is wanted


def test_a_regex_that_is_none_is_refused():
    with pytest.raises(SchemeError, match="expected a regular expression"):
        recipe.matches("x", "re:(")


def test_modifiers_with_targets_and_ignore_lists():
    said = {
        "modifiers": [
            {"method": "gptq", "scheme": "W8A16", "targets": ["re:.*down_proj"], "damp": 0.05},
            {"method": "rtn", "scheme": "W4A16", "ignore": ["lm_head", "q_proj"]},
        ]
    }
    got = read(said)
    down, up = (got.rounding(f"model.layers.0.mlp.{part}_proj") for part in ("down", "up"))
    assert (down.method, str(down.weights), dict(down.options)) == ("gptq", "int8-channel", {"damp": 0.05})
    assert (up.method, str(up.weights)) == ("nearest", "int4-g128")
    assert got.rounding("model.layers.0.self_attn.q_proj") is None and got.rounding("lm_head") is None
    assert got.calibrated and not read("W4A16").calibrated


def test_the_recipes_of_llm_compressor_are_read():
    gptq = {"scheme": "W4A16", "ignore": ["lm_head"], "dampening_frac": 0.02, "actorder": "static"}
    got = read({"quant_stage": {"quant_modifiers": {"SmoothQuantModifier": {"smoothing_strength": 0.8}}}})
    assert [m.method for m in got.modifiers] == ["smoothquant", "nearest"]
    assert dict(got.modifiers[0].options) == {"alpha": 0.8} and str(got.modifiers[1].activations) == "int8-token"
    both = read({"quant_stage": {"quant_modifiers": {"SmoothQuantModifier": {}, "GPTQModifier": gptq}}})
    assert [m.method for m in both.modifiers] == ["smoothquant", "gptq"]
    assert dict(both.modifiers[1].options) == {"damp": 0.02, "order": "activation", "static_groups": True}


def test_config_groups_are_read_as_schemes():
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64}
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    groups = {"group_0": {"weights": weights, "input_activations": inputs, "targets": ["Linear"]}}
    got = read({"QuantizationModifier": {"config_groups": groups, "ignore": ["lm_head"]}}).modifiers[0]
    assert (str(got.weights), str(got.activations)) == ("int4-g64-asym", "int8-token")


def test_files_and_arguments_say_the_same(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"modifiers": [{"scheme": "W4A16", "method": "gptq", "ignore": ["up_proj"]}]}))
    assert read(path) == read(str(path)) == read("W4A16", method="gptq", ignore=["up_proj"])
    assert [m.method for m in read("W8A8", method="smoothquant").modifiers] == ["smoothquant", "nearest"]
    assert read("W4A16", layout="gptq").layout == "gptq"
    assert (read("Q4_K_M").layout, read("Q4_K_M").file_type) == ("gguf", "Q4_K_M")


@pytest.mark.parametrize(
    "said, message",
    [
        ({"modifiers": []}, "expected at least one"),
        ({"modifiers": [{"scheme": "W4A16"}], "colour": 1}, "'colour'"),
        ({"modifiers": "gptq"}, "expected a list of objects"),
        ({"quant_stage": {"quant_modifiers": {"FooModifier": {}}}}, "'FooModifier'"),
        ({"GPTQModifier": {"scheme": "W4A16", "speed": 1}}, "'speed'"),
        ({"scheme": "W4A16", "method": "magic"}, "method = 'magic'"),
        ({"scheme": "W4A16", "targts": "mlp"}, "'targts' of nearest is unknown, expected one of method, scheme"),
        ({"scheme": "Q4_K_M", "targts": "mlp"}, "'targts' of nearest is unknown"),
        ({"scheme": "W4A16", "method": "awq", "clp": False}, "'clp' of awq is unknown, .*clip"),
        ({"scheme": "W4A16", "method": "gptq", "dampp": 0.1}, "'dampp' of gptq is unknown, .*damp"),
        ({"scheme": "W4A16", "layout": "marlin"}, "layout = 'marlin', expected one of compressed-tensors"),
        ({"bits": 4, "checkpoint_format": "marlin"}, "layout = 'marlin'"),
        ({"scheme": "W4A16", "ignore": 5}, "ignore = 5"),
        ({"QuantizationModifier": {"config_groups": {}}}, "expected objects, a group each"),
        (5, "expected a name"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(said, message):
    with pytest.raises(SchemeError, match=message):
        read(said)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "r.json").write_text("{")
    for name in ("r.json", "missing.json"):
        with pytest.raises(SchemeError, match="cannot be read as JSON"):
            read(tmp_path / name)


def test_the_command_explains_names_and_keywords(capsys):
    assert main(["explain", "load_in_4bit=True", "bnb_4bit_quant_type=nf4", "bnb_4bit_compute_dtype=float16"]) == 0
    out = capsys.readouterr().out
    assert "weights      nf4" in out and "bnb_4bit_compute_dtype is of the runtime" in out
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert "W4A16_ASYM" in out and "bnb_4bit_use_double_quant" in out
    assert main(["explain", "bnb_4bit_compute_dtype"]) == 0
    assert capsys.readouterr().out.startswith("bnb_4bit_compute_dtype is of the runtime")
    assert main(["explain", "W4A15"]) == 1


def test_the_command_explains_recipes_of_llm_compressor(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(LLM_COMPRESSOR)
    assert main(["explain", str(tmp_path / "r.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "layout       compressed-tensors"
    assert [line.split()[:2] for line in lines[2:]] == [
        ["smoothquant", "int8-channel"],
        ["gptq", "int8-channel"],
        ["gptq", "int4-g64"],
    ]
    assert "re:.*self_attn.*" in lines[3] and "damp 0.05" in lines[3]


LLM_COMPRESSOR = """\
quant_stage:
  quant_modifiers:
    SmoothQuantModifier:
      smoothing_strength: 0.7
    GPTQModifier:
      ignore: [lm_head]
      dampening_frac: 0.05
      config_groups:
        group_0:
          targets: ["re:.*self_attn.*"]
          weights: {num_bits: 8, type: int, symmetric: true, strategy: channel}
        group_1:
          targets: [Linear]
          weights: {num_bits: 4, type: int, symmetric: true, strategy: group, group_size: 64}
"""


def test_yaml_is_read_as_a_file_as_text_and_means_what_the_dict_means(tmp_path):
    for name in ("r.yaml", "r.yml"):
        (tmp_path / name).write_text(LLM_COMPRESSOR)
        assert read(tmp_path / name) == read(str(tmp_path / name)) == read(yaml.safe_load(LLM_COMPRESSOR))
    got = read(LLM_COMPRESSOR)
    assert [m.method for m in got.modifiers] == ["smoothquant", "gptq", "gptq"]
    assert str(got.rounding("model.layers.0.self_attn.q_proj").weights) == "int8-channel"
    assert str(got.rounding("model.layers.0.mlp.up_proj").weights) == "int4-g64"
    assert dict(got.modifiers[1].options) == {"damp": 0.05}
    ours = "modifiers:\n- {method: gptq, scheme: W4A16, ignore: [lm_head, 're:.*down_proj'], damp: 0.02}\n"
    assert read(ours).rounding("model.layers.0.mlp.down_proj") is None
    assert dict(read(ours).modifiers[0].options) == {"damp": 0.02}


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1\n", "cannot be read as YAML"),
        ("a: &x [1]\nb: *x\n", "has an alias"),
        ("- 1\n- 2\n", "int, expected a name"),
        ("just text\nin lines\n", "holds str, expected an object"),
        ("modifiers:\n", "expected a list of objects"),
        ("a: !!python/object:os.system x\n", "cannot be read as YAML"),
    ],
)
def test_yaml_that_is_no_recipe_is_refused(text, message):
    with pytest.raises(SchemeError, match=message):
        read(text)


def test_without_pyyaml_the_extra_is_named_and_json_still_works(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UnsupportedError, match="PyYAML is not installed, expected the extra `recipes`"):
        read("quant_stage:\n  x: 1\n")
    (tmp_path / "r.json").write_text('{"scheme": "W4A16"}')
    assert read(tmp_path / "r.json") == read('{"scheme": "W4A16"}') == read({"scheme": "W4A16"})


def test_a_scheme_with_targets_of_its_own_becomes_a_modifier_each():
    said = {"QuantizationModifier": {"scheme": {"W8A16": ["down_proj"], "W4A16": ["Linear"]}, "ignore": ["lm_head"]}}
    got = read(said)
    assert str(got.rounding("model.layers.0.mlp.down_proj").weights) == "int8-channel"
    assert str(got.rounding("model.layers.0.mlp.up_proj").weights) == "int4-g128"


def test_a_scheme_becomes_the_type_of_gguf_that_holds_it_and_no_other():
    assert read("int4-g32", layout="gguf") == read("Q4_0") == read({"scheme": "int4-g32", "layout": "gguf"})
    got, ref = read("int8-g32", method="gptq", layout="gguf"), read("Q8_0", method="gptq")
    assert (got.file_type, got.modifiers[0].weights) == (ref.file_type, ref.modifiers[0].weights)
    for said, layout, message in (
        ("W4A16", "gguf", r"int4-g128 as gguf, expected int4-g32 \(Q4_0\)"),
        ("W8A8", "gguf", "with inputs in int8-token as gguf"),
        ("Q4_K_M", "gptq", "Q4_K_M as gptq, expected a scheme"),
        ([{"scheme": "W8A16", "targets": ["down_proj"]}, {"scheme": "W4A16"}], "gguf", "2 formats as gguf"),
    ):
        with pytest.raises(SchemeError, match=message):
            read(said, layout=layout)
