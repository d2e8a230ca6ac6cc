"""What a token is for: the values of `tokenizer.ggml.token_type`."""

from enum import IntEnum


class TokenType(IntEnum):
    """The numbers of the file."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2  # stands for what has no token; found in text only where special tokens are
    CONTROL = 3  # no text: begin, end, whose turn it is
    USER_DEFINED = 4  # text that is always one token
    UNUSED = 5  # fills the table; decodes to nothing
    BYTE = 6  # `<0xFF>`: one byte of a character that has no token


MARKERS = (TokenType.CONTROL, TokenType.UNKNOWN)  # tokens that text somebody typed never becomes
