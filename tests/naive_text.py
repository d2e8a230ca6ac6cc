"""Tokenizing by the book: slow, scalar, imports nothing of ours."""

from itertools import pairwise


def byte_pair_merge(word: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merge the pair of the lowest rank, the leftmost of equals, until no pair has a rank."""
    word = list(word)
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(word)) if pair in ranks]
        if not pairs:
            return word
        _, i = min(pairs)
        word[i : i + 2] = [word[i] + word[i + 1]]


def sentence_piece_merge(characters: list[str], scores: dict[str, float]) -> list[str]:
    """Merge the pair that makes the piece of the highest score, the leftmost of equals, until no pair makes one."""
    word = list(characters)
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(word)) if a + b in scores]
        if not pairs:
            return word
        _, i = min(pairs)
        word[i : i + 2] = [word[i] + word[i + 1]]


def partition(text: str, tokens: list[str]) -> list[tuple[str, bool]]:
    """(piece, whether it is a token), tokens taken in the given order, each from the left, each in what is left."""
    parts = [(text, False)] if text else []
    for token in tokens:
        new = []
        for part, done in parts:
            if done:
                new.append((part, done))
                continue
            between = part.split(token)
            for i, piece in enumerate(between):
                new += [(token, True)] if i else []
                new += [(piece, False)] if piece else []
        parts = new
    return parts
