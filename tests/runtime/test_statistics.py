"""The line after an answer, and its numbers for programs."""

import json

from runtime.statistics import Statistics

ANSWER = Statistics(
    read=120, reused=45, generated=32, prompt_seconds=0.5, seconds=2.0, position=196, n_ctx=4096, seed=7, stop="end"
)


def test_the_line_says_what_a_person_wants_to_know():
    assert str(ANSWER) == "32 tokens at 15.5/s · prompt 120 tokens at 240/s, 45 reused · context 196 of 4096"


def test_an_answer_that_was_cut_says_why():
    assert str(Statistics(read=1, n_ctx=8)) == "0 tokens · prompt 1 token · context 0 of 8 · stopped"
    assert "the context is full" in str(Statistics(stop="context"))
    assert "limit of tokens" in str(Statistics(stop="length"))


def test_the_first_token_counts_for_the_prompt():
    assert ANSWER.rate == 31 / 2
    assert Statistics(generated=1, seconds=1.0).rate == 0


def test_programs_get_every_number():
    got = json.loads(json.dumps(ANSWER.as_dict()))
    assert got == {
        "prompt_tokens": 165,
        "prompt_tokens_reused": 45,
        "prompt_seconds": 0.5,
        "prompt_tokens_per_second": 240,
        "generated_tokens": 32,
        "generation_seconds": 2.0,
        "generated_tokens_per_second": 15.5,
        "stop": "end",
        "seed": 7,
        "context_used": 196,
        "context": 4096,
    }
