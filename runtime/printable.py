"""Text of a model made safe for a terminal, and told apart into thoughts and answer.

Control characters do things to a terminal: move the cursor, rename the window, answer back as if typed. Nothing a model
writes may do that, so all but newline and tab go: C0 (0x00-0x1f), DEL, C1 (0x80-0x9f).
"""

_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
_CONTROL.pop(ord("\n"))
_CONTROL.pop(ord("\t"))
_LINE = _CONTROL | {ord("\n"): " ", ord("\t"): " "}


def printable(text: str) -> str:
    """`text` without control characters; newline and tab stay."""
    return text.translate(_CONTROL)


def one_line(text: object) -> str:
    """`text` as a single line without control characters, for messages."""
    return str(text).strip().translate(_LINE)


class Thoughts:
    """Tells pieces of an answer apart: (text, True) from <think> to </think>, tags included, else (text, False).

    A tag may come in several pieces; what could be the beginning of one is held back until more arrives or `flush`.
    """

    OPEN, CLOSE = "<think>", "</think>"

    def __init__(self, thinking: bool = False):
        self._thinking = thinking
        self._held = ""

    def push(self, piece: str) -> list[tuple[str, bool]]:
        """What can be shown now."""
        text, parts = self._held + piece, []
        while (at := text.find(self._tag)) >= 0:
            end = at + len(self._tag)
            inside = at if not self._thinking else end
            parts += [(text[:inside], self._thinking), (text[inside:end], True)]
            text, self._thinking = text[end:], not self._thinking
        held = next((n for n in range(len(self._tag) - 1, 0, -1) if text.endswith(self._tag[:n])), 0)
        self._held = text[len(text) - held :]
        parts.append((text[: len(text) - held], self._thinking))
        return [part for part in parts if part[0]]

    def flush(self) -> list[tuple[str, bool]]:
        """What was held back and turned out to be no tag."""
        held, self._held = self._held, ""
        return [(held, self._thinking)] if held else []

    @property
    def _tag(self) -> str:
        return self.CLOSE if self._thinking else self.OPEN
