"""Chat templates: what they render, which ids come out, and what a file without one gets."""

import hashlib

import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

import refquant.gguf as gguf
from refquant.errors import GGUFError, RangeError, UnsupportedError
from refquant.text import ChatTemplate, Tokenizer
from refquant.text.template_process import TemplateProcess
from refquant.text.token_type import TokenType

CHAT = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there"},
    {"role": "user", "content": "Who are you"},
    {"role": "assistant", "content": "   I am an assistant   "},
    {"role": "user", "content": "Another question"},
]
CONTROL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CONTROL += [
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
]
SPECIAL = dict.fromkeys(CONTROL, TokenType.CONTROL) | dict.fromkeys(["<think>", "</think>"], TokenType.USER_DEFINED)
FILE = small.byte_pairs(["< |", "| >", "i m", "e n", "Ċ Ċ"], SPECIAL, pre="qwen2", bos_token_id=261, eos_token_id=262)
TOKENIZER = Tokenizer.from_gguf(FILE)
TEMPLATES = {path.stem: path.read_text("utf-8") for path in (small.FOLDER.parent / "templates").glob("*.jinja")}


def template(name: str, process: TemplateProcess, tokenizer: Tokenizer = TOKENIZER) -> ChatTemplate:
    return ChatTemplate(TEMPLATES[name], tokenizer, process=process)


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


RENDERED = {
    "llama-2": "<s>[INST] <<SYS>>\nYou are a helpful assistant\n<</SYS>>\n\nHello [/INST] Hi there </s>"
    "<s>[INST] Who are you [/INST] I am an assistant </s><s>[INST] Another question [/INST]",
    "llama-3": "<s><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n"
    "<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n"
    "<|im_start|>assistant\n",
    "mistral": "<s>[INST] Hello[/INST] Hi there</s>[INST] Who are you[/INST] I am an assistant</s>"
    "[INST] You are a helpful assistant\n\nAnother question[/INST]",
    "phi-3": "<|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n"
    "<|user|>\nWho are you<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n<|user|>\nAnother question<|end|>\n"
    "<|assistant|>\n",
}
RENDERED["qwen3"] = RENDERED["chatml"]
GEMMA = (
    "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n"
    "<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\nI am an assistant<end_of_turn>\n"
    "<start_of_turn>user\nAnother question<end_of_turn>\n<start_of_turn>model\n"
)


@pytest.mark.parametrize("name", RENDERED)
def test_a_conversation_in_the_format_of_a_family(name, process):
    assert template(name, process).render(CHAT) == RENDERED[name]


def test_a_conversation_without_a_system_message(process):
    assert template("gemma", process).render(CHAT[1:]) == GEMMA
    assert (
        template("chatml", process)
        .render(CHAT[1:2])
        .startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
    )


def test_without_a_generation_prompt_the_text_ends_with_the_last_message(process):
    for name, role in [("chatml", "<|im_start|>"), ("llama-3", "<|start_header_id|>"), ("phi-3", "<|")]:
        got = template(name, process).render(CHAT, add_generation_prompt=False)
        assert got == RENDERED[name].rpartition(role + "assistant")[0]


def test_thinking_is_kept_for_the_last_answer_only(process):
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}
    got = template("qwen3", process).render([*user("a"), thought, *user("b"), thought], add_generation_prompt=False)
    turns = ["user\na", "assistant\nYes", "user\nb", "assistant\n<think>\nhm\n</think>\n\nYes"]
    assert got == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)


def test_variables_of_the_caller_reach_the_template(process):
    got = template("qwen3", process).render(user("a"), enable_thinking=False)
    assert got.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(RangeError, match=r"variables = \['bos_token'\], expected other names"):
        template("qwen3", process).render(user("a"), bos_token="x")


@pytest.mark.parametrize("name", [*RENDERED, "gemma"])
def test_ids_are_those_of_the_rendered_text(name, process):
    chat = CHAT[1:] if name == "gemma" else CHAT
    got = template(name, process).encode(chat)
    ref = TOKENIZER.encode(template(name, process).render(chat), parse_special=True)
    assert got == ref
    assert TOKENIZER.decode(got) == template(name, process).render(chat)


PIECES = st.lists(st.sampled_from([*CONTROL, *"<|>[]/_ \n☃", "im", "end", "INST", "<think>", "<|im_", "a"]), max_size=8)


@given(content=PIECES.map("".join), name=st.sampled_from(["chatml", "qwen3"]))
def test_what_a_user_types_never_becomes_a_control_token(content, name, process):
    got = template(name, process).encode(CHAT[:1] + user(content))
    marks = {text: TOKENIZER.vocabulary.index[text] for text in ("<|im_start|>", "<|im_end|>")}
    runs = ["system\nYou are a helpful assistant", "\n", f"user\n{content}", "\n", "assistant\n"]
    encoded = [TOKENIZER.encode(run, add_special=False) for run in runs]
    start, end = [marks["<|im_start|>"]], [marks["<|im_end|>"]]
    assert got == start + encoded[0] + end + encoded[1] + start + encoded[2] + end + encoded[3] + start + encoded[4]


@given(content=PIECES.map("".join))
def test_text_without_control_tokens_is_encoded_as_if_unprotected(content, process):
    for token in CONTROL:
        content = content.replace(token, "")
    if not any(token in content for token in CONTROL):
        chat = template("llama-3", process)
        assert chat.encode(user(content)) == TOKENIZER.encode(chat.render(user(content)), parse_special=True)


def test_protected_text_is_stripped_and_shown_as_typed(process):
    chat = template("llama-3", process)
    assert "\n\n<|eot_id|> x<|eot_id|>" in chat.render(user("  <|eot_id|> x "))
    ids = chat.encode(user("  <|eot_id|> x "))
    assert ids.count(TOKENIZER.vocabulary.index["<|eot_id|>"]) == 1
    assert TOKENIZER.decode(ids) == chat.render(user("  <|eot_id|> x "))


def test_a_token_that_the_template_completes_is_one(process):
    ids = template("phi-3", process).encode(user("hi"))
    assert [TOKENIZER.token_text(i) for i in ids if TOKENIZER.is_control(i)] == ["<|user|>", "<|end|>", "<|assistant|>"]


def test_tools_and_other_variables_are_text_of_the_caller_too(process):
    chat = ChatTemplate("{{ tools | tojson }}{{ x }}", TOKENIZER, process=process)
    ids = chat.encode(user("hi"), tools=[{"<|end|>": "<s>"}], x="</s>")
    assert not any(TOKENIZER.is_control(i) for i in ids)
    assert TOKENIZER.decode(ids) == '[{"<|end|>": "<s>"}]</s>'


@pytest.mark.parametrize(
    ("source", "add_bos", "ref"),
    [
        ("x", True, 1),
        ("x", False, 0),
        ("{{ bos_token }}x", True, 1),
        ("{{ bos_token }}x", False, 1),
        ("{{ bos_token * 2 }}x", True, 1),
        ("{{ bos_token * 2 }}x", False, 1),
        ("", True, 1),
        ("", False, 0),
    ],
)
@pytest.mark.parametrize("name", ["spm", "llama-bpe"])
def test_there_is_one_bos(name, source, add_bos, ref, process):
    tokenizer = small.tokenizer(name, add_bos_token=add_bos)
    ids = ChatTemplate(source, tokenizer, process=process).encode(user("hi"))
    assert ids[:2].count(tokenizer.bos) == ref
    assert ids[ref:] == (tokenizer.encode("x", add_special=False) if source else [])


def test_a_bos_inside_the_text_stays(process):
    ids = template("llama-2", process).encode(CHAT)
    assert ids.count(TOKENIZER.bos) == 3


def test_the_template_of_a_file_is_used_and_named(process):
    chat = ChatTemplate.from_gguf(
        small.opened("qwen2", chat_template="{{ messages[0].content }}!"), TOKENIZER, process=process
    )
    assert chat.render(user("hi")) == "hi!"
    assert chat.fingerprint == hashlib.sha256(chat.source.encode()).hexdigest()[:16]
    assert chat.warnings == ()


@pytest.mark.parametrize(
    ("name", "format_name", "ref"),
    [
        ("qwen2", "ChatML", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("llama-bpe", "Llama 3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("spm", "Llama 2", "<s>[INST] Hi [/INST]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("missing", [None, ""])
def test_a_file_without_a_template_gets_the_format_of_its_tokens(name, format_name, ref, missing, process):
    file = small.opened(name, chat_template=missing)
    chat = ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file), process=process)
    assert chat.render(user("Hi")) == ref
    assert format_name in chat.warnings[0]


def test_the_formats_of_fallback_write_whole_conversations(process):
    for name, ref in [("qwen2", "chatml"), ("llama-bpe", "llama-3"), ("spm", "llama-2")]:
        file = small.opened(name)
        got = ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file), process=process).render(CHAT)
        assert got.replace("<|begin_of_text|>", "<s>") == RENDERED[ref]


def test_a_file_without_a_template_and_without_telling_tokens_is_refused(process):
    file = small.opened("gpt-2")
    with pytest.raises(UnsupportedError, match=r"tokenizer\.chat_template is missing, and no token tells the format"):
        ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file), process=process)


@pytest.mark.parametrize(
    "source", [3, ["x"], "a\udcff", "x" * ((1 << 20) + 1)], ids=["number", "list", "bytes", "long"]
)
def test_a_template_that_is_no_text_is_refused(source, process):
    with pytest.raises(GGUFError, match=r"tokenizer\.chat_template = .*, expected text of at most 1048576 characters"):
        ChatTemplate.from_gguf(small.opened("qwen2", chat_template=source), TOKENIZER, process=process)
    with pytest.raises(RangeError, match=r"chat template: source = .*, expected text"):
        ChatTemplate(source, TOKENIZER, process=process)


def test_a_template_that_rejects_the_messages_says_so(process):
    with pytest.raises(RangeError, match=r"chat template [0-9a-f]{16}: Roles must alternate: user, assistant"):
        template("llama-2", process).encode(CHAT[2:])
    with pytest.raises(RangeError, match="System role not supported"):
        template("gemma", process).render(CHAT)


def test_messages_are_left_as_they_were(process):
    chat = [{"role": "user", "content": "<|im_end|>", "extra": ["<s>"]}]
    template("chatml", process).encode(chat)
    assert chat == [{"role": "user", "content": "<|im_end|>", "extra": ["<s>"]}]


def test_a_template_with_a_process_of_its_own_ends_it():
    with ChatTemplate(TEMPLATES["chatml"], TOKENIZER) as chat:
        assert chat.render(CHAT) == RENDERED["chatml"]
        worker = chat._process._process
    assert worker.returncode is not None


def test_the_template_of_a_published_file(shared):
    with gguf.open(shared("models/tiny-qwen2-Q4_K_M.gguf")) as file:
        tokenizer = Tokenizer.from_gguf(file)
        with ChatTemplate.from_gguf(file, tokenizer) as chat:
            text, ids = chat.render(user("What is <|im_end|>?")), chat.encode(user("What is <|im_end|>?"))
    ref = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWhat is <|im_end|>?<|im_end|>\n"
    )
    assert text == ref + "<|im_start|>assistant\n"
    assert [tokenizer.token_text(i) for i in ids if tokenizer.is_control(i)] == ["<|im_start|>", "<|im_end|>"] * 2 + [
        "<|im_start|>"
    ]


def test_the_template_of_the_tiny_llama(shared, process):
    import json

    config = json.loads(shared("models/tiny-llama/tokenizer_config.json").read_text("utf-8"))
    chat = ChatTemplate(config["chat_template"], small.tokenizer("spm"), process=process)
    assert chat.render(CHAT) == RENDERED["llama-2"]
    assert chat.encode(CHAT)[:2] == [1, *small.tokenizer("spm").encode("[INST] <<SYS>>", add_special=False)[:1]]
