r"""How each family of models cuts text into words before byte pairs are merged: `tokenizer.ggml.pre` -> regexes.

The regexes of an entry apply one after the other. Each splits every piece that the one before it left into its matches
and what lies between them, and no piece ever sees its neighbour: `(?!\S)` holds at the end of a piece.

Dialect  llama.cpp's. Where its regexes depart from a model's tokenizer.json, ids follow llama.cpp: `tekken` and
         `gpt-4o` tell capitals from small letters in ASCII only, and their words hold no combining marks; `(?i:'s)` is
         spelled out in ASCII, so that U+017F is no s; classes that list characters never match white space.
Syntax   Oniguruma, as in the package `tokenizers`; `&&` intersects classes. Its Unicode tables are newer than those of
         llama.cpp (15.1): the two differ in characters assigned since.
Source   src/llama-vocab.cpp and src/unicode.cpp of llama.cpp (0c1e57098).
Absent   gemma4, granite-embed-multi-311m, sarvam-moe, whitespace (no byte-level alphabet); kimi-k2, superbpe,
         chameleon, afmoe, tiny_aya, cohere2moe (not a list of regexes); jina-v1-en, jina-v2-code, roberta-bpe (they
         add a separator); jais-2 (its regex takes time quadratic in the length of a run of spaces).
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from refquant.errors import GGUFError


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The regexes of one family and what else its name implies."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a word that is a token stays whole, whatever the merges would make of it
    add_bos: bool = False  # unless tokenizer.ggml.add_bos_token says otherwise


SPACES = r"\s+(?!\S)|\s+"  # all but the last of a run, which goes to the word that follows
LINES = r"\s*[\r\n]+|" + SPACES
CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + SPACES
LLAMA3 = rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{SYMBOLS}|{LINES}"
QWEN2 = rf"{CONTRACTION}|{WORD}|\p{{N}}|{SYMBOLS}|{LINES}"
QWEN35 = (
    rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"
)
EXAONE_MOE = (
    rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{SPACES}"
)
BAILING = rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{WORD}|\p{{N}}|{SYMBOLS}|\s*[\r\n]|{SPACES}"
SEED_CODER = rf"{CONTRACTION}|{WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{LINES}"
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


def _cased(letters: str, suffix: str, digits: str) -> str:
    """Words that start a new one at a capital inside them: aWord -> a, Word."""
    upper, lower = f"[{letters}&&[^a-z]]", f"[{letters}&&[^A-Z]]"
    lead, symbols = r"[^\r\n\p{L}\p{N}]?", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
    return rf"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}|{digits}|{symbols}|{LINES}"


TEKKEN = _cased(r"\p{L}", "", r"\p{N}")
GPT4O = _cased(r"\p{L}", CONTRACTION + "?", r"\p{N}{1,3}")
GRANITE_MULTILINGUAL = _cased(r"\p{L}\p{M}", CONTRACTION + "?", r"\p{N}{1,3}")

DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
CHINESE = "[[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]&&\\S]+"
CHINESE_JAPANESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
ASCII_SYMBOL_WORD = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{DEEPSEEK_LETTERS}]+",
    "\\s?[[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]&&\\S]+",
    r"(?<!\s)\s++$",  # \s+$, without looking again from every space of a long run
    CHINESE,
    r"\p{N}+",
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CHINESE, r"\p{N}")
DEEPSEEK_V3 = (r"\p{N}{1,3}", CHINESE_JAPANESE, rf"{ASCII_SYMBOL_WORD}[\r\n]*|{LINES}")
SPARK = (r"\p{N}{1,3}", CHINESE_JAPANESE, rf"{ASCII_SYMBOL_WORD}|[\r\n]|{SPACES}", r"\p{N}")
YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|" + CHINESE_JAPANESE,
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{CONTRACTION}?|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}",
)
DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")


def _entries() -> Iterator[tuple[str, PreTokenizer]]:
    """(names, what they mean), names as written in tokenizer.ggml.pre."""
    yield "default", PreTokenizer(DEFAULT)
    yield (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        PreTokenizer((LLAMA3,), ignore_merges=True, add_bos=True),
    )
    yield "dbrx smaug-bpe chatglm-bpe", PreTokenizer((LLAMA3,))
    yield "glm4 glm5", PreTokenizer((LLAMA3,), ignore_merges=True)
    yield (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        PreTokenizer((QWEN2,)),
    )
    yield "qwen35", PreTokenizer((QWEN35,))
    yield "ufakzeka", PreTokenizer((rf"{WORD}|\p{{N}}|{SYMBOLS}|{LINES}",))
    yield "laguna", PreTokenizer((r"[^\n]+|\n+", QWEN2))
    yield (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        PreTokenizer((r"\p{N}", GPT2)),
    )
    yield (
        "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt olmo jais trillion "
        "granite-docling exaone4",
        PreTokenizer((GPT2,)),
    )
    yield "falcon", PreTokenizer(FALCON)
    yield "tekken", PreTokenizer((TEKKEN,), ignore_merges=True, add_bos=True)
    yield "gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((GPT4O,))
    yield "granite-embed-multi-97m", PreTokenizer((GRANITE_MULTILINGUAL,), ignore_merges=True)
    yield "deepseek-llm", PreTokenizer(DEEPSEEK_LLM)
    yield "deepseek-coder", PreTokenizer(DEEPSEEK_CODER)
    yield "deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer(DEEPSEEK_V3)
    yield "spark2_5", PreTokenizer(SPARK)
    yield "youtu", PreTokenizer(YOUTU, ignore_merges=True)
    yield "seed-coder", PreTokenizer((SEED_CODER,))
    yield "bailingmoe bailingmoe2 llada-moe", PreTokenizer((BAILING,))
    yield "exaone-moe", PreTokenizer((EXAONE_MOE,))
    yield "minicpm5", PreTokenizer((r"\p{N}{1,3}", LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")), ignore_merges=True)
    yield "bloom poro-chat gpt3-finnish", PreTokenizer((BLOOM,))
    yield "viking", PreTokenizer((BLOOM, r"\p{N}"))


PRETOKENIZERS: dict[str, PreTokenizer] = {name: entry for names, entry in _entries() for name in names.split()}


def lookup(name: str, where: str) -> PreTokenizer:
    """The entry of `name`; GGUFError for a name that is not in the table, with those nearest to it."""
    if name not in PRETOKENIZERS:
        near = difflib.get_close_matches(name, PRETOKENIZERS, n=3) or ["llama-bpe", "qwen2", "gpt-2"]
        raise GGUFError(
            f"{where}: tokenizer.ggml.pre = {name[:64]!r}, expected one of {len(PRETOKENIZERS)} known pre-tokenizers "
            f"(nearest: {', '.join(near)})"
        )
    return PRETOKENIZERS[name]
