"""What a caller may hand to a chat template."""

import pytest

from refquant.errors import RangeError
from refquant.text.messages import checked

HI = {"role": "user", "content": "hi"}


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"messages = \[\], expected a list of at least one message"),
        (None, "messages = None"),
        ("hi", "messages = 'hi'"),
        (HI, "expected a list"),
        (["hi"], r"messages\[0\] = 'hi', expected {\"role\""),
        ([HI, {"content": "x"}], r"messages\[1\] = "),
        ([{"role": 3, "content": "x"}], r"messages\[0\]"),
        ([{"role": "user", "content": b"x"}], r"messages\[0\]\['content'\] = bytes, expected text"),
        ([{"role": "user", "content": object()}], "= object, expected"),
        ([{"role": "user", "content": {1: 2}}], "= dict, expected"),
        ([{"role": "user", "content": 1 << 63}], "= int, expected text, 64-bit numbers"),
        ([{"role": "user", "content": "a\udc80"}], r"messages\[0\]\['content'\]\[1\] = U\+DC80, a lone surrogate"),
        ([{"role": "us\ud800er", "content": ""}], r"\['role'\]\[2\] = U\+D800"),
        ([{"role": "user", "content": "", "\ud800": ""}], r"U\+D800"),
        ([{"role": "user", "content": nested(40)}], "is nested more than 32 deep"),
        (
            [{"role": "user", "content": "x" * 3_000_000}] * 2,
            "messages hold 6000030 characters, expected at most 4194304",
        ),
    ],
)
def test_refusals_name_the_place(messages, message):
    with pytest.raises(RangeError, match=message):
        checked(messages)


def test_a_copy_holds_plain_data():
    messages = ({"role": "user", "content": ({"type": "text", "text": "a"}, None, True, -1, 0.5)},)
    copy = checked(messages)
    assert copy == [{"role": "user", "content": [{"type": "text", "text": "a"}, None, True, -1, 0.5]}]
    copy[0]["content"][0]["text"] = "b"
    assert messages[0]["content"][0]["text"] == "a"
