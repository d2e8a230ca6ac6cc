"""What counts as text: a str of at most 4,194,304 Unicode characters, that is, without lone surrogates.

Python keeps bytes of a file that are not UTF-8 as lone surrogates (U+DC80..U+DCFF). Such a str has no UTF-8 form: as a
token it can match nothing, as input it is refused rather than replaced by something nobody wrote. The length is more
than any context holds; `tokenizers` gives up on runs of ten million spaces.
"""

import re

from refquant.errors import RangeError

MAX_CHARACTERS = 1 << 22
SURROGATE = re.compile("[\ud800-\udfff]")


def is_unicode(text: str) -> bool:
    """Whether `text` has a UTF-8 form."""
    return SURROGATE.search(text) is None


def require_text(where: str, what: str, text: str) -> None:
    """Raise RangeError unless `text` is a str without lone surrogates and not too long."""
    if not isinstance(text, str):
        raise RangeError(f"{where}: {what} = {type(text).__name__}, expected str")
    if len(text) > MAX_CHARACTERS:
        raise RangeError(f"{where}: len({what}) = {len(text)}, expected at most {MAX_CHARACTERS} characters")
    if found := SURROGATE.search(text):
        got = f"U+{ord(found.group()):04X}, a lone surrogate"
        raise RangeError(f"{where}: {what}[{found.start()}] = {got}, expected a character")
