"""Chat templates: messages -> the text, or the ids, that a model was trained to answer.

    ChatTemplate.from_gguf(gguf, tokenizer).encode([{"role": "user", "content": "Hi"}])

The template of a file (`tokenizer.chat_template`) is a Jinja program from whoever made the file: it runs in a sandbox,
in another process, with a time limit (template_process.py). A file without one gets the format that its control tokens
suggest, and `warnings` says so.

Text of the caller never becomes a control token (protection.py), and otherwise gives the ids that the rendered text
gives. One BOS comes first where the tokenizer adds one or the template writes one, however many of them do.

Templates see `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `unk_token`, `pad_token`, `tools` and
`documents` (None), and what else the caller names, `enable_thinking=False` for instance.
"""

import hashlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from refquant.errors import GGUFError, RangeError
from refquant.gguf.container import GGUFFile
from refquant.text import messages as chat
from refquant.text import template_fallbacks
from refquant.text.protection import Protection, protect
from refquant.text.template_process import TemplateProcess
from refquant.text.tokenizer import Tokenizer
from refquant.text.unicode_text import is_unicode

KEY = "tokenizer.chat_template"
MAX_SOURCE = 1 << 20
TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


class ChatTemplate:
    """One template for one tokenizer. It owns a process: `close` it, or use it in a `with` block."""

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        process: TemplateProcess | None = None,
        warnings: tuple[str, ...] = (),
    ):
        if not isinstance(source, str) or not is_unicode(source) or len(source) > MAX_SOURCE:
            raise RangeError(
                f"chat template: source = {source!r:.60}, expected text of at most {MAX_SOURCE} characters"
            )
        self.source = source
        self.fingerprint = hashlib.sha256(source.encode("utf-8")).hexdigest()[:16]
        self.warnings = warnings
        self._tokenizer = tokenizer
        self._process = process or TemplateProcess()
        self._owns_process = process is None

    @classmethod
    def from_gguf(
        cls, gguf: GGUFFile, tokenizer: Tokenizer, *, process: TemplateProcess | None = None
    ) -> "ChatTemplate":
        """The template of an open file, or the format its vocabulary suggests. Raises GGUFError, UnsupportedError."""
        source = gguf.metadata.get(KEY)
        if source is None or source == "":
            source, name = template_fallbacks.choose(tokenizer.vocabulary)
            warning = f"{KEY} is missing: messages are written as {name} does"
            return cls(source, tokenizer, process=process, warnings=(warning,))
        if not isinstance(source, str) or not is_unicode(source) or len(source) > MAX_SOURCE:
            raise GGUFError(f"{gguf.path}: {KEY} = {source!r:.60}, expected text of at most {MAX_SOURCE} characters")
        return cls(source, tokenizer, process=process)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text for `messages`, ending where the answer begins if `add_generation_prompt`.

        Raises RangeError for messages that are none, or that the template rejects; UnsupportedError for a template that
        fails, is too slow or too large.
        """
        text, protection = self._render(messages, add_generation_prompt, variables)
        return protection.restore(text)

    def encode(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids for `messages`. Raises as `render` does."""
        text, protection = self._render(messages, add_generation_prompt, variables)
        ids = self._tokenizer.encode_restored(text, protection.restore)
        bos = self._tokenizer.bos
        if bos is None:
            return ids
        first = next((i for i, token in enumerate(ids) if token != bos), len(ids))
        return [bos] * (first > 0 or self._tokenizer.add_bos) + ids[first:]

    def close(self) -> None:
        """End the process, unless it was handed in."""
        if self._owns_process:
            self._process.close()

    def __enter__(self) -> "ChatTemplate":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, variables: Mapping[str, Any]
    ) -> tuple[str, Protection]:
        """(rendered text in which no text of the caller spells a control token, the way back)."""
        if taken := TOKENS.keys() & variables.keys():
            raise RangeError(f"chat template: variables = {sorted(taken)}, expected other names: these are the file's")
        ids, text = self._tokenizer.vocabulary.ids, self._tokenizer.token_text
        tokens = {name: "" if ids[part] is None else text(ids[part]) for name, part in TOKENS.items()}
        given = {"messages": chat.checked(messages), **chat.plain(variables, "variables")}
        guarded, protection = protect(given, self._tokenizer.special, self.source)
        defaults = {"tools": None, "documents": None, "add_generation_prompt": bool(add_generation_prompt)}
        context = {**defaults, **tokens, **guarded}
        return self._process.render(f"chat template {self.fingerprint}", self.source, context), protection
