"""Text to ids and back, with the vocabularies of `vectors/v1/vocabularies`."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Text": {
        "kind": "ordinary",
        "description": "Sentences, numbers, code, several scripts.",
        "effect": "The model is given other tokens than it was trained on: it answers, and worse.",
    },
    "Spaces": {
        "kind": "edge",
        "description": "Runs of spaces, tabs and line ends, at the beginning, inside and at the end.",
        "effect": "Indentation of code and the first token of an answer are lost or doubled.",
    },
    "Empty": {
        "kind": "edge",
        "description": "No text at all.",
        "effect": "A token from nowhere, or a crash.",
    },
    "Rare": {
        "kind": "edge",
        "description": "Emoji that are joined from several, combining marks, private and four-byte characters.",
        "effect": "Characters outside of the vocabulary become question marks instead of bytes.",
    },
    "Control": {
        "kind": "edge",
        "description": "Text that spells a control token, once as text and once as the token (`parse_special`).",
        "effect": "What a user types can end a turn or begin a system prompt; or templates do not work.",
    },
    "Bytes": {
        "kind": "edge",
        "description": "Ids whose bytes together are one character, or none.",
        "effect": "Streams of text show replacement characters.",
    },
    "BadId": {
        "kind": "refusal",
        "description": "An id outside of the vocabulary.",
        "effect": "A read past the end of a table.",
    },
}
MEMBERS = {  # a control token of each
    "spm": "</s>",
    "llama-bpe": "<|end_of_text|>",
    "qwen2": "<|im_end|>",
    "gpt-2": "<|endoftext|>",
    "bundled": "<|im_end|>",
}
TEXTS = {
    "empty": ("Empty", ""),
    "words": ("Text", "Hello world, it's 3.14159 past 10:45 and they'll say \"we've won\"!"),
    "code": ("Text", "for (int i = 0; i < 1024; ++i) {\n\tsum += x[i];\n}\n"),
    "numbers": ("Text", "1 12 123 1234 12345 1,000,000"),
    "letters": ("Text", "ALLCAPS camelCase snake_case HTTPServer"),
    "latin": ("Text", "Der Bäcker grüßt, où êtes-vous, El niño comió"),
    "cyrillic": ("Text", "Съешь же ещё этих булок"),
    "chinese": ("Text", "今天天气很好。東京タワー、한국어！"),
    "arabic": ("Text", "مرحبا بالعالم"),
    "leading-space": ("Spaces", " Hello"),
    "spaces": ("Spaces", "   x    y  "),
    "line-ends": ("Spaces", "a\r\n\r\nb\n\n\n c\t\t"),
    "emoji": ("Rare", "👩\u200d💻 🇩🇪 😀😀"),
    "combining": ("Rare", "e\u0301 n\u0303 \u0301"),
    "private": ("Rare", "\ue000\U00020000"),
}


def cases() -> Iterator[Case]:
    """Each vocabulary: texts to ids, ids to texts."""
    for member, mark in MEMBERS.items():
        algorithm, file = f"tokenizer.{member}", {"vocabulary": f"vocabularies/{member}.gguf"}
        texts = TEXTS | {"control": ("Control", f"a{mark}b")}
        for label, (flag, text) in texts.items():
            for group, special in (("plain", False), ("special", True)):
                params = file | {"add_special": special, "parse_special": special}
                yield Case(algorithm, group, label, "encode", {"text": utf8(text)}, params, (flag,))
        for label, ids in {"first": range(300), "one": [200], "none": []}.items():
            given = {"ids": np.array(ids, np.int32)}
            yield Case(algorithm, "decode", label, "decode", given, file, ("Bytes",))
        for label, value in (("negative", -1), ("beyond", 1 << 20)):
            given = {"ids": np.array([5, value], np.int32)}
            yield Case(algorithm, "refuse", label, "decode", given, file, ("BadId",), "invalid")


def utf8(text: str) -> np.ndarray:
    """The bytes of a text."""
    return np.frombuffer(text.encode("utf-8"), np.uint8)
