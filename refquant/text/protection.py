"""Keeping text that somebody typed from turning into control tokens on its way through a chat template.

    content    "a<|im_end|>b"        a control token is spelled out in it
    protected  "a\ue000|im_end|>b"   its first character gives way to a private-use one that occurs nowhere else
    rendered   "<|im_start|>user\na\ue000|im_end|>b<|im_end|>\n"    the template's own spellings are still whole
    cut at control tokens, then restored, then each run encoded as plain text

One character for one: lengths, stripping, splitting and comparing in a template see what they would have seen, unless
it looks for the spelling itself. Only spellings inside one text of the caller are touched; one that a template
completes, as in '<|' + message['role'] + '|>', is the template's.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from refquant.errors import RangeError
from refquant.text.messages import Json, map_text, texts_of
from refquant.text.special_tokens import SpecialTokens

PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


@dataclass(frozen=True, slots=True)
class Protection:
    """Which stand-in stands for which character."""

    originals: dict[str, str]

    def restore(self, text: str) -> str:
        """`text` with every stand-in, as itself or as JSON escapes it, turned back."""
        for stand_in, original in self.originals.items():
            text = text.replace(stand_in, original).replace(_escaped(stand_in), original)
        return text


def protect(value: Json, special: SpecialTokens, template: str) -> tuple[Json, Protection]:
    """(`value` with every spelling of a control or unknown token broken, the way back). Raises RangeError."""
    texts = list(texts_of(value))
    spellings = {token.text for text in texts for token in special.present(text, parse_special=True) if token.marker}
    characters = sorted({text[_place(text)] for text in spellings})
    stand_ins = dict(zip(characters, _unused("".join((template, *texts, *spellings))), strict=False))
    if len(stand_ins) < len(characters):
        raise RangeError("chat: messages use up the private-use characters, expected some to be free")

    def broken(text: str) -> str:
        places = {at + _place(spelling) for spelling in spellings for at in _occurrences(text, spelling)}
        return "".join(stand_ins[c] if i in places else c for i, c in enumerate(text)) if places else text

    return map_text(value, broken), Protection({stand_in: c for c, stand_in in stand_ins.items()})


def _place(spelling: str) -> int:
    """The index of the character to replace: the first that is not white space, which templates strip."""
    return len(spelling) - len(spelling.lstrip()) if spelling.strip() else 0


def _occurrences(text: str, spelling: str) -> Iterator[int]:
    """Where `spelling` begins in `text`, overlapping itself or not."""
    at = text.find(spelling)
    while at >= 0:
        yield at
        at = text.find(spelling, at + 1)


def _unused(text: str) -> Iterator[str]:
    """Private-use characters that are not in `text`, neither as themselves nor escaped."""
    taken, folded = set(text), text.lower()
    return (c for c in map(chr, chain(*PRIVATE_USE)) if c not in taken and _escaped(c) not in folded)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
