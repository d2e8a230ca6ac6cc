"""Make tests/data/vocab: a small vocabulary per main pre-tokenizer, and the ids that llama.cpp gives for tricky texts.

    PYTHONPATH=. python tests/make_vocabularies.py --peer PYTHON     PYTHON: an interpreter that has llama-cpp-python

Vocabularies are trained on docstrings of the standard library and on the sentences below, so another Python version
makes other ones: run this only to change what is tested, and commit all of its output. ids.json holds

    texts     the texts
    files     per vocabulary what llama_cpp_ids.py answers: ids of each text, what ends an answer, a hash
    variants  the same for a vocabulary under changed metadata: every pre-tokenizer, flags, the name of a model; ids of
              the texts as plain text only, where nothing but the pre-tokenizer changes
"""

import argparse
import importlib
import inspect
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import refquant.gguf as gguf
from refquant.text.pretokenizers import PRETOKENIZERS
from refquant.text.token_type import TokenType

FOLDER = Path(__file__).parent / "data" / "vocab"
SIZE = 1024
MODULES = "argparse ast collections csv datetime decimal difflib email functools inspect json logging os pathlib re"
SENTENCES = """\
The quick brown fox doesn't jump over 12,345 lazy dogs; it's 3.14159 past 10:45, and they'll say "we've won"!
for (int i = 0; i < 1024; ++i) { sum += x[i] * y[i]; }    // 0xDEADBEEF\n\tif (!ok) return -1;\r\n
Der Bäcker grüßt fröhlich die schöne Müllerin. Où êtes-vous allés cet été ? El niño comió piñas en España.
Съешь же ещё этих мягких французских булок, да выпей чаю. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
今天天气很好，我们去公园散步吧。 東京は日本の首都です。 これはテストです。 한국어 문장도 하나 있습니다.
مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך? नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก
Tiếng Việt có nhiều dấu thanh. Đường phố Hà Nội rất đông. Zażółć gęślą jaźń. Příliš žluťoučký kůň.
🎉🎊 party 👩‍💻👨‍👩‍👧‍👦 😀😀😀 → ← ≤ ≥ ≠ ∑ √ ∞ ½ ¾ ² ³ ① Ⅷ €100 £50 ¥1000
"""
TEXTS = [
    *(
        "",
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\n\n\n x",
        " \n \t\r\n  y ",
        "\u00a0x\u3000y\u2028z\u0085w\u200bv",
    ),
    *(
        "Hello",
        " Hello",
        "  Hello",
        "Hello world",
        "hello, y'all! how're you?",
        "I'M we'LL He'S they'Ve 'tis 'D",
        "don\u2019t",
    ),
    *("w048 7tuijk dsdfhu", "1 12 123 1234 12345 3.14 1,000,000 ½ ² Ⅷ ٣٤ १२३", "$100 + 50% = ~#@!?^&*()_[]{}|\\<>/`"),
    *(
        "ALLCAPS camelCaseWord snake_case HTTPServer iPhone éÉcole ÉCOLE Ǆ ǅ",
        "ied 4 ½ months",
        "=>-->...???!!!\n\n  ----",
    ),
    *(
        "今天天气很好。東京タワー、한국어！ ㄅㄆㄇ",
        "Привет мир Ελλάδα Հայաստան ქართული",
        "مرحبا بالعالم، שָׁלוֹם नमस्ते दुनिया কেমন สวัสดี",
    ),
    *(
        "e\u0301 n\u0303 \u0301\u0301 a\u20dd",
        "Tiếng Việt đường phố",
        "🎉 👩‍💻 👨‍👩‍👧‍👦 🇩🇪 ❤️ 😀😀",
        "\U00020000\U0001f600\ue000\U000f0000",
    ),
    *(
        "\x00\x01\x1f\x7f\x80\x9f",
        "a\x00b",
        "\ufeffbom \ufffd \u202e",
        "K\u212a ſ's 'ſ İı ẞß ﬁ",
        "日本語\u3000全角　空白",
    ),
    *(
        "def f(x):\n    return x ** 2\n\n\n\tpass\n",
        "https://example.org/a?b=c&d=%20#e",
        "!\n/\n/a;\r\n//b",
        "x" * 60 + " " * 33 + "!" * 40,
    ),
    *(
        "<s>user</s> <unk> <0x0A> <0xGG>",
        "<|im_start|>user\nhi<|im_end|>\n",
        "<|eot_id|><|end_of_text|> [INST] x [/INST]",
    ),
    *(
        "<|begin_of_text|>",
        "<think> a </think> b<tool_call>",
        "\u2581under\u2581score ▁▁",
        "<|im_<|im_end|>end|> <<s>>",
        "a</s>  \n b<s>  c",
    ),
    *(
        "<|user|> \n\t x<|endoftext|>\u00a0y </s>  z<s>  w<|assistant|> v",
        "The quick brown fox doesn't jump over 12,345 lazy dogs",
    ),
    *("ünïcödé " * 3, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\t\t\t  \t x"),
]

CHATML = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
LLAMA3 = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
]
MISTRAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
HARMONY = ["<|startoftext|>", "<|return|>", "<|call|>", "<|end|>", "<|endoftext|>"]
PHI3 = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
THINKING = ["<think>", "</think>", "<tool_call>"]

UNSPLIT = "unsplit"

# vocabulary, named after its pre-tokenizer -> control tokens (the first is BOS, the second EOS), user-defined tokens
BYTE_PAIRS: dict[str, tuple[list[str], list[str]]] = {
    "llama-bpe": (LLAMA3, []),
    "qwen2": (CHATML, THINKING),
    "qwen35": (CHATML, THINKING),
    "gpt-2": (["<|endoftext|>"], []),
    "smollm": (CHATML, []),
    "tekken": (MISTRAL[1:], []),
    "deepseek-llm": (DEEPSEEK[:2], []),
    "deepseek-v3": (DEEPSEEK, THINKING),
    "gpt-4o": (HARMONY, []),
    "glm4": (["<|endoftext|>", "<|user|>", "<|assistant|>"], THINKING),
    "default": (["<s>", "</s>"], ["    "]),
    UNSPLIT: (["<s>", "</s>"], []),
}


def corpus() -> list[str]:
    """Paragraphs in many scripts, with a good deal of code and English."""
    texts = [SENTENCES] * 3
    for name in MODULES.split():
        module = importlib.import_module(name)
        texts += [inspect.getdoc(value) or "" for _, value in sorted(vars(module).items()) if callable(value)]
    return texts


def windows(texts: list[str], width: int = 7, step: int = 5) -> list[str]:
    """Short overlapping pieces, cut without regard to words."""
    text = "".join(texts)
    return [text[i : i + width] for i in range(0, len(text), step)]


def byte_pairs(name: str, control: list[str], user: list[str]) -> dict[str, object]:
    """Metadata of a byte-level vocabulary: 256 bytes, what training merges, then the special tokens.

    The vocabulary "unsplit" learns its merges across every border that a pre-tokenizer may draw, so that each border
    shows in the ids.
    """
    from tokenizers import Regex, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    tokenizer = Tokenizer(models.BPE())
    pre = "default" if name == UNSPLIT else name
    patterns = () if name == UNSPLIT else PRETOKENIZERS[pre].patterns
    splits = [Split(Regex(pattern), "isolated") for pattern in patterns]
    tokenizer.pre_tokenizer = Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
    special = [*control, *user]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(special), initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(windows(corpus()) if name == UNSPLIT else corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [*sorted(model["vocab"], key=model["vocab"].get), *special]
    types = [TokenType.NORMAL] * (len(tokens) - len(special))
    types += [TokenType.CONTROL] * len(control) + [TokenType.USER_DEFINED] * len(user)
    ids = [tokens.index(text) for text in (control * 2)[:2]]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": ids[0],
        "tokenizer.ggml.eos_token_id": ids[1],
    }


def sentencepieces() -> dict[str, object]:
    """Metadata of a SentencePiece BPE vocabulary with byte fallback, as Llama 2 has it."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(corpus()).splitlines()),
        model_writer=model,
        vocab_size=SIZE,
        model_type="bpe",
        byte_fallback=True,
        control_symbols=PHI3,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=0.99,
        num_threads=1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = trained.get_piece_size()
    kinds = (trained.is_unknown, trained.is_control, trained.is_unused, trained.is_byte)
    names = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED, TokenType.BYTE)
    types = [next((n for n, kind in zip(names, kinds, strict=True) if kind(i)), TokenType.NORMAL) for i in range(count)]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [trained.id_to_piece(i) for i in range(count)],
        "tokenizer.ggml.scores": np.array([trained.get_score(i) for i in range(count)], np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def variants(made: dict[str, dict[str, object]]) -> dict[str, tuple[str, dict[str, object]]]:
    """name -> (vocabulary, changed metadata): what else one vocabulary can show."""
    distinct = {entry: pre for pre, entry in reversed(PRETOKENIZERS.items())}
    found = {f"pre {pre}": (UNSPLIT, {"tokenizer.ggml.pre": pre}) for pre in reversed(distinct.values())}
    found["no space prefix"] = ("spm", {"tokenizer.ggml.add_space_prefix": False})
    found["eos, no bos"] = ("spm", {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True})
    found["bos and eos"] = ("qwen2", {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True})
    found["no bos"] = ("llama-bpe", {"tokenizer.ggml.add_bos_token": False})
    found["phi-3"] = ("spm", {"general.name": "Phi-3 mini"})
    for name, kind in (("user-defined pieces", TokenType.USER_DEFINED), ("unused pieces", TokenType.UNUSED)):
        types = made["spm"]["tokenizer.ggml.token_type"].copy()
        types[300:320] = kind
        found[name] = ("spm", {"tokenizer.ggml.token_type": types})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="an interpreter that has llama-cpp-python")
    peer = parser.parse_args().peer
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = {pre: byte_pairs(pre, *special) for pre, special in BYTE_PAIRS.items()} | {"spm": sentencepieces()}
    for name, metadata in made.items():
        gguf.write(FOLDER / f"{name}.gguf", metadata, {})
    ids = {"texts": TEXTS, "files": {}, "variants": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: FOLDER / f"{name}.gguf" for name in made}
        for name, (base, changes) in variants(made).items():
            paths[f"{base}: {name}"] = path = Path(folder) / f"{len(paths)}.gguf"
            gguf.write(path, made[base] | changes, {})
        questions = "".join(json.dumps({"path": str(path), "texts": TEXTS}) + "\n" for path in paths.values())
        asked = subprocess.run(
            [peer, Path(__file__).with_name("llama_cpp_ids.py")],
            input=questions,
            capture_output=True,
            text=True,
            check=True,
        )
    answers = dict(zip(paths, map(json.loads, asked.stdout.splitlines()), strict=True))
    ids["files"] = {name: answers[name] for name in made}
    for name, (base, changes) in variants(made).items():
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in changes.items()}
        answer = answers[f"{base}: {name}"]
        kept = {"plain": answer["plain"]} if name.startswith("pre ") else answer
        ids["variants"][name] = {"file": base, "metadata": plain, **kept}
    (FOLDER / "ids.json").write_text(json.dumps(ids, separators=(",", ":")).replace("]],", "]],\n") + "\n", "ascii")


if __name__ == "__main__":
    main()
