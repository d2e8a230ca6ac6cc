"""A Model without weights: the surface of runtime.Model, bytes for tokens, and answers that a test writes down.

It is a real Model in everything but its numbers: sessions, generation and sampling are the runtime's own; only `step`
is replaced by one that makes the next byte of the scripted answer likely.
"""

import codecs
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from refquant.errors import QuantError
from runtime.model import Model

BEGIN, END, BOS = 256, 257, 258
N_VOCAB = 259
NAMES = {BEGIN: "<|im_start|>", END: "<|im_end|>", BOS: "<s>"}


class ByteTokenizer:
    """Token i < 256 is byte i; BEGIN and END are control tokens, END the end of an answer."""

    eog = frozenset({END})
    vocab_size = N_VOCAB
    warnings = ()

    def encode(self, text, add_special=True, parse_special=False):
        ids = [BOS] if add_special else []
        while text:
            found = [(text.find(name), i) for i, name in NAMES.items() if parse_special and name in text]
            at, special = min(found, default=(len(text), None))
            ids += text[:at].encode()
            text = text[at:]
            if special is not None:
                ids.append(special)
                text = text[len(NAMES[special]) :]
        return ids

    def decode(self, ids, skip_special=False):
        parts = [bytes([i]) if i < 256 else b"" if skip_special else NAMES[i].encode() for i in ids]
        return b"".join(parts).decode("utf-8", "replace")

    def stream(self, skip_special=True, strip_space=False):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return SimpleNamespace(push=lambda i: decoder.decode(bytes([i])), flush=lambda: decoder.decode(b"", True))


class Template:
    """ChatML without line ends: <|im_start|>role:content<|im_end|> and so on."""

    warnings = ()

    def encode(self, messages, add_generation_prompt=True):
        ids = [BOS]
        for message in messages:
            ids += [BEGIN, *f"{message['role']}:{message['content']}".encode(), END]
        return ids + ([BEGIN, *b"assistant:"] if add_generation_prompt else [])


class FakeModel(Model):
    """Answers `answer(prompt)` to every prompt, END after it. The prompt is text with the spellings of NAMES.

    `raw` is the text that a test will have continued without template: bytes do not tell where a prompt ends.
    `before_step(count)` is called before the count-th step (from 0): a place to raise KeyboardInterrupt. `steps` counts
    them, `read` holds how many tokens each one read.
    """

    def __init__(self, answer, n_ctx=4096, n_ctx_train=None, has_template=True, metadata=None, notices=(), raw=""):
        self.answer, self.n_ctx, self.kv_dtype = answer, n_ctx, "f16"
        self.config = SimpleNamespace(
            n_layer=1, n_head_kv=1, head_dim=1, head_dim_v=1, n_vocab=N_VOCAB, n_ctx_train=n_ctx_train or n_ctx
        )
        template = {"tokenizer.chat_template": "{{ messages }}"} if has_template else {}
        self.gguf = SimpleNamespace(path=Path("fake.gguf"), metadata=template | (metadata or {}), close=lambda: None)
        self.tokenizer, self.notices = ByteTokenizer(), notices
        self.has_template, self.raw = has_template, raw
        self.before_step = lambda count: None
        self.read: list[int] = []
        self.closed = False
        self.steps = 0
        self._seen: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    @property
    def template(self):
        if not self.has_template:
            raise QuantError("fake.gguf: tokenizer.chat_template is missing, expected a template in the file")
        return Template()

    @property
    def threads(self):
        return 1

    def step(self, ids, cache, start, last):
        self.steps += 1
        self.before_step(self.steps - 1)
        self.read.append(len(ids))
        seen = self._seen.setdefault(id(cache), [])
        seen[start:] = ids.tolist()
        logits = np.full((1, N_VOCAB), -20, np.float32)
        logits[0, self._next(seen)] = 20
        return logits

    def close(self):
        self.closed = True

    def _next(self, seen):
        opening = [BEGIN, *b"assistant:"]
        starts = [i + len(opening) for i in range(len(seen)) if seen[i : i + len(opening)] == opening]
        cut = starts[-1] if starts else 1 + len(self.raw.encode())
        rest = self.answer(self.tokenizer.decode(seen[:cut])).encode()[len(seen) - cut :]
        return rest[0] if rest else END
