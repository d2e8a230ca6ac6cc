"""The tokenizer as its users see it: special ids, BOS and EOS, text that is none, and very long text."""

import sys
import threading
import time

import pytest
import small_vocabularies as small

from refquant.errors import RangeError, UnsupportedError
from refquant.text import Tokenizer

SPM, BPE = small.tokenizer("spm"), small.tokenizer("llama-bpe")
BOTH = pytest.mark.parametrize("tokenizer", [SPM, BPE], ids=["spm", "llama-bpe"])


def test_properties_are_those_of_the_file():
    assert (BPE.vocab_size, BPE.add_bos, BPE.add_eos) == (1024, True, False)
    names = {i: BPE.token_text(i) for i in (BPE.bos, BPE.eos, BPE.eot)}
    assert list(names.values()) == ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    assert {BPE.token_text(i) for i in BPE.eog} == {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"}
    assert BPE.is_control(BPE.bos)
    assert not BPE.is_control(0)
    assert not SPM.is_control(0)  # the unknown token


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", ["spm", "llama-bpe", "qwen2"])
def test_bos_and_eos_go_around_the_text_as_the_file_says(name, bos, eos):
    tokenizer = small.tokenizer(name, add_bos_token=bos, add_eos_token=eos)
    inner = tokenizer.encode("Hi there", add_special=False)
    assert tokenizer.encode("Hi there") == [tokenizer.bos] * bos + inner + [tokenizer.eos] * eos
    assert tokenizer.encode("") == [tokenizer.bos] * bos + [tokenizer.eos] * eos
    assert tokenizer.encode("", add_special=False) == []


@BOTH
def test_a_bos_that_the_text_spells_is_the_only_one(tokenizer):
    bos = tokenizer.token_text(tokenizer.bos)
    assert tokenizer.encode(bos + "a", parse_special=True).count(tokenizer.bos) == 1
    assert tokenizer.encode(bos + bos, parse_special=True).count(tokenizer.bos) == 2
    assert tokenizer.encode("a" + bos, parse_special=True).count(tokenizer.bos) == 2
    assert tokenizer.encode(bos + "a").count(tokenizer.bos) == 1
    ended = small.tokenizer("spm", add_eos_token=True)
    assert ended.encode("a</s>", parse_special=True).count(ended.eos) == 1


@BOTH
def test_typed_text_never_becomes_a_control_token(tokenizer):
    controls = [i for i in range(1024) if tokenizer.is_control(i)]
    text = "".join(tokenizer.token_text(i) for i in controls)
    assert not set(tokenizer.encode(text, add_special=False)) & set(controls)
    assert [i for i in tokenizer.encode(text, add_special=False, parse_special=True) if i in controls] == controls


@BOTH
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab\udcff", r"text\[2\] = U\+DCFF, a lone surrogate, expected a character"),
        ("\ud83d\ude00", r"text\[0\] = U\+D83D"),
        ("a" * ((1 << 22) + 1), r"len\(text\) = 4194305, expected at most 4194304 characters"),
        (b"a", "text = bytes, expected str"),
        (None, "text = NoneType, expected str"),
    ],
    ids=["byte", "pair", "long", "bytes", "none"],
)
def test_what_is_not_text_is_refused(tokenizer, text, message):
    with pytest.raises(RangeError, match=message):
        tokenizer.encode(text)


@BOTH
@pytest.mark.parametrize(
    "text",
    ["A" * 1_000_000, " " * 1_000_000, " " * 1_000_000 + "x", "\n" * 100_000, "中文字符" * 25_000, "<s> " * 50_000],
    ids=["letters", "spaces", "spaces and a letter", "newlines", "chinese", "spelled tokens"],
)
def test_long_text_takes_seconds_and_comes_back(tokenizer, text):
    start = time.perf_counter()
    ids = tokenizer.encode(text, add_special=False)
    assert time.perf_counter() - start < 30
    assert tokenizer.decode(ids) == text


@BOTH
def test_a_long_run_is_encoded_like_a_shorter_one(tokenizer):
    short, long = (tokenizer.encode("A" * n, add_special=False) for n in (4096, 65536))
    assert long[: len(short) - 8] == short[:-8]


@BOTH
def test_threads_may_share_a_tokenizer(tokenizer):
    texts = [f"thread {i} says hello, world! " * 50 for i in range(4)]
    ref = [tokenizer.encode(text) for text in texts]
    got = [None] * 4

    def work(i: int) -> None:
        got[i] = [tokenizer.encode(texts[i]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[ids] * 5 for ids in ref]


def test_runs_between_control_tokens_are_restored_before_they_are_read():
    got = BPE.encode_restored("<|eot_id|>x\ue000|eot_id|>", lambda run: run.replace("\ue000", "<"))
    assert got == [BPE.eot, *BPE.encode("x<|eot_id|>", add_special=False)]


def test_a_missing_package_is_named(monkeypatch):
    for package, name in [("sentencepiece", "spm"), ("tokenizers", "qwen2")]:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UnsupportedError, match=f"{package} is not installed, expected `pip install"):
            Tokenizer.from_gguf(small.opened(name))
