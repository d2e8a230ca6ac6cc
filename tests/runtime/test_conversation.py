"""Turns: what is remembered, what is read again, what an interruption leaves behind."""

from contextlib import closing

import pytest
from fake_model import BEGIN, FakeModel

from refquant.errors import ContextFullError, QuantError, RangeError
from runtime.conversation import Conversation


def echo(prompt):
    """The last question, upside down in case."""
    return prompt.rpartition("user:")[2].partition("<|im_end|>")[0].swapcase()


def talk(model, **options):
    return Conversation(model, {"temperature": 0}, **options)


def say(conversation, question):
    return "".join(conversation.ask(question))


def interrupt_at(model, step):
    """Ctrl-C in the step-th step from now, counted from 0."""
    begun = model.steps

    def raise_at(count):
        if count == begun + step:
            raise KeyboardInterrupt

    model.before_step = raise_at


def test_questions_and_answers_become_turns():
    conversation = talk(FakeModel(echo))
    assert say(conversation, "Hello") == "hELLO"
    assert say(conversation, "grüß 日本 🙂") == "GRÜSS 日本 🙂"
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"] * 2
    assert [turn["content"] for turn in conversation.turns] == ["Hello", "hELLO", "grüß 日本 🙂", "GRÜSS 日本 🙂"]


def test_characters_of_several_bytes_come_out_whole():
    pieces = list(talk(FakeModel(lambda _: "日本")).ask("?"))
    assert pieces == ["日", "本"]


def test_the_model_sees_system_message_and_all_turns():
    prompts = []

    def answer(prompt):
        prompts.append(prompt)
        return "ok"

    conversation = talk(FakeModel(answer), system="be brief")
    say(conversation, "one")
    say(conversation, "two")
    assert prompts[-1] == (
        "<s><|im_start|>system:be brief<|im_end|><|im_start|>user:one<|im_end|><|im_start|>assistant:ok<|im_end|>"
        "<|im_start|>user:two<|im_end|><|im_start|>assistant:"
    )


def test_a_second_question_reads_only_what_is_new():
    model = FakeModel(echo)
    conversation = talk(model)
    say(conversation, "a" * 300)
    model.read.clear()
    say(conversation, "b")
    new = len("<user:b><assistant:") + 1  # BEGIN and END are one token each; the END after the answer is new too
    assert sum(model.read) == new + len("B") - 1 + 1
    assert conversation.statistics.read == new
    assert conversation.statistics.reused > 600


def test_statistics_count_tokens():
    conversation = talk(FakeModel(lambda _: "four"))
    say(conversation, "?")
    record = conversation.statistics
    assert (record.generated, record.stop, record.n_ctx, record.reused) == (4, "end", 4096, 0)
    assert record.read == len("b<user:?><assistant:")
    assert record.position == record.read + 4
    assert record.prompt_seconds > 0 and record.seconds > 0


def test_a_limit_ends_an_answer_and_says_so():
    conversation = talk(FakeModel(lambda _: "long story"), limit=4)
    assert say(conversation, "?") == "long"
    assert conversation.statistics.stop == "length"
    assert conversation.turns[-1]["content"] == "long"


def test_an_empty_answer_is_a_turn():
    conversation = talk(FakeModel(lambda _: ""))
    assert say(conversation, "?") == ""
    assert conversation.turns[-1] == {"role": "assistant", "content": ""}
    assert conversation.statistics.generated == 0


def test_closing_the_answer_keeps_what_was_written():
    conversation = talk(FakeModel(lambda _: "abcdef"))
    with closing(conversation.ask("?")) as pieces:
        assert [next(pieces) for _ in range(3)] == ["a", "b", "c"]
    assert conversation.turns[-1]["content"] == "abc"
    assert conversation.statistics.stop == "interrupted"
    assert conversation.statistics.generated == 3


def test_an_interruption_while_writing_keeps_the_beginning():
    model = FakeModel(lambda _: "abcdef")
    conversation = talk(model)
    interrupt_at(model, 2)  # one step reads the prompt, one reads "a", the next fails
    got = []
    with pytest.raises(KeyboardInterrupt):
        got.extend(conversation.ask("?"))
    assert got == ["a", "b"]
    assert conversation.turns[-1]["content"] == "ab"
    assert conversation.statistics.stop == "interrupted"
    assert say(conversation, "again") == "abcdef"


def test_an_interruption_while_reading_takes_the_question_back():
    model = FakeModel(echo)
    conversation = talk(model)
    say(conversation, "first")
    model.read.clear()
    interrupt_at(model, 1)
    with pytest.raises(KeyboardInterrupt):
        say(conversation, "x" * 1000)
    assert len(conversation.turns) == 2
    assert say(conversation, "next") == "NEXT"


def test_a_regenerated_answer_replaces_the_last_one():
    conversation = talk(FakeModel(echo))
    say(conversation, "first")
    conversation.model.answer = lambda prompt: "one"
    say(conversation, "second")
    conversation.model.answer = lambda prompt: "two"
    assert "".join(conversation.regenerate()) == "two"
    assert [turn["content"] for turn in conversation.turns] == ["first", "FIRST", "second", "two"]


def test_a_regeneration_stopped_before_it_began_leaves_the_old_answer():
    model = FakeModel(lambda _: "old")
    conversation = talk(model)
    say(conversation, "?")
    model.before_step = lambda count: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(conversation.regenerate())
    assert conversation.turns[-1]["content"] == "old"


def test_there_must_be_an_answer_to_regenerate():
    with pytest.raises(QuantError, match="there is no answer yet"):
        list(talk(FakeModel(echo)).regenerate())


def test_clear_forgets_turns_and_keeps_the_system_message():
    conversation = talk(FakeModel(echo), system="s")
    say(conversation, "q")
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "s"}]


def test_a_question_that_does_not_fit_is_refused_and_the_conversation_stays():
    conversation = talk(FakeModel(echo, n_ctx=64))
    say(conversation, "short")
    before = conversation.turns
    with pytest.raises(
        ContextFullError,
        match=r"the context is full: \d+ tokens to read, expected at most 64 \(all that this model can read\)",
    ):
        say(conversation, "x" * 64)
    assert conversation.turns == before
    conversation.clear()
    assert say(conversation, "short") == "SHORT"


def test_an_answer_that_fills_the_context_is_cut_and_says_so():
    conversation = talk(FakeModel(lambda _: "a" * 100, n_ctx=64))
    answer = say(conversation, "?")
    assert conversation.statistics.stop == "context"
    assert len(answer) == 64 - len("b<user:?><assistant:") + 1  # the last token needs no place: nothing follows it
    assert conversation.statistics.position == 64


def test_raw_text_is_continued_without_a_template():
    model = FakeModel(lambda prompt: " a time", has_template=False, raw="Once upon")
    conversation = talk(model)
    assert "".join(conversation.complete("Once upon")) == " a time"
    assert conversation.turns == []
    assert BEGIN not in conversation.session.tokens


@pytest.mark.parametrize("special, count", [(False, len("<|im_end|>")), (True, 1)])
def test_control_tokens_in_raw_text_are_text_unless_asked_for(special, count):
    conversation = talk(FakeModel(lambda prompt: ""))
    list(conversation.complete("<|im_end|>", parse_special=special))
    assert conversation.statistics.read == 1 + count


def test_equal_seeds_and_actions_give_equal_texts_and_a_regeneration_another():
    def texts(seed):
        model = FakeModel(echo)
        step = model.step
        model.step = lambda *args, **kw: step(*args, **kw) * 0  # every byte equally likely
        conversation = Conversation(model, {"temperature": 1.0, "top_k": 0, "seed": seed}, limit=20)
        return [say(conversation, "q"), "".join(conversation.regenerate()), say(conversation, "r")]

    first, again, other = texts(3), texts(3), texts(4)
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]


def test_the_seed_of_an_answer_is_in_its_statistics():
    conversation = Conversation(FakeModel(echo), {"seed": 2**64 - 1})
    say(conversation, "a")
    assert conversation.statistics.seed == 2**64 - 1
    say(conversation, "b")
    assert conversation.statistics.seed == 0


def test_wrong_settings_are_refused_before_the_first_question():
    with pytest.raises(RangeError, match="top_p = 2"):
        Conversation(FakeModel(echo), {"top_p": 2})
