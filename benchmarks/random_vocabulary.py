"""A vocabulary of any size that no text was needed for: byte-level BPE, random merges, valid for every reader.

    0 .. 255                    the bytes
    256 .. bpe_tokens - 1       merges of an earlier token and one of the first, at most 10 letters, a space in front of
                                some (U+0120)
    bpe_tokens .. n_vocab - 1   control tokens and, where the model has them, unused padding

There are as many merges as made tokens, so that loading costs about what it does for the real vocabulary. (Llama 3 has
280,147 merges for its 128,000 tokens, which this one has not.)
"""

import string
from typing import Any

import numpy as np

from benchmarks.shapes import Shape
from refquant.text.byte_level import ALPHABET

LONGEST = 10
ENDINGS = 500  # tokens that a merge may end with: mostly short, so that few merges are too long
SPACE = ALPHABET[0x20]
NORMAL, CONTROL, UNUSED = 1, 3, 5  # tokenizer.ggml.token_type
N_QWEN_CONTROL = 22
SEED = 1

Metadata = dict[str, tuple[str, Any]]  # key -> (type as in GGUFFile.types, value)


def random_vocabulary(shape: Shape) -> Metadata:
    """The keys `tokenizer.ggml.*`; the same for the same sizes."""
    tokens, merges = _merged(shape.bpe_tokens)
    if shape.arch == "llama":
        special = ["<|begin_of_text|>", "<|end_of_text|>"]
        end = [9, "<|eot_id|>"]
        bos, eos, pre, n_control = 0, 9, "llama-bpe", shape.n_vocab - shape.bpe_tokens
    else:
        special = ["<|endoftext|>", "<|im_start|>"]
        end = [2, "<|im_end|>"]
        bos, eos, pre, n_control = 0, 2, "qwen2", N_QWEN_CONTROL
    n_control = min(n_control, shape.n_vocab - shape.bpe_tokens)
    special += [f"<|reserved_{i}|>" for i in range(len(special), n_control)]
    special[end[0]] = end[1]
    unused = [f"[PAD{i}]" for i in range(shape.bpe_tokens + n_control, shape.n_vocab)]
    kinds = [NORMAL] * len(tokens) + [CONTROL] * n_control + [UNUSED] * len(unused)
    return {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", pre),
        "tokenizer.ggml.tokens": ("arr[str]", tokens + special + unused),
        "tokenizer.ggml.token_type": ("arr[i32]", np.array(kinds, np.int32)),
        "tokenizer.ggml.merges": ("arr[str]", merges),
        "tokenizer.ggml.bos_token_id": ("u32", shape.bpe_tokens + bos),
        "tokenizer.ggml.eos_token_id": ("u32", shape.bpe_tokens + eos),
        "tokenizer.ggml.padding_token_id": ("u32", shape.bpe_tokens + bos),
        "tokenizer.ggml.add_bos_token": ("bool", shape.arch == "llama"),
    }


def _merged(count: int) -> tuple[list[str], list[str]]:
    """(tokens, merges): the bytes, then one new token a merge, until there are `count` tokens."""
    tokens, merges = list(ALPHABET), []
    first = [SPACE, *string.ascii_lowercase]  # what a merge may begin with ...
    later = list(string.ascii_lowercase)  # ... and go on with: a space stands in front only
    known = set(tokens)
    bits = np.random.PCG64(SEED)  # raw bits: the same in every version of NumPy
    while len(tokens) < count:
        for draw in bits.random_raw(count).tolist():
            left, right = first[(draw >> 32) % len(first)], later[(draw & 0xFFFFFFFF) % len(later)]
            token = left + right
            if len(token) > LONGEST or token in known:
                continue
            known.add(token)
            tokens.append(token)
            merges.append(f"{left} {right}")
            first.append(token)
            if token[0] != SPACE and len(later) < ENDINGS:
                later.append(token)
            if len(tokens) == count:
                break
    return tokens, merges
