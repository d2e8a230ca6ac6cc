"""Turns of a conversation, and the writing of answers: one Session, so that only what is new is read.

    ask          the question joins the turns once its answer has begun; stopped earlier, it is taken back
    regenerate   another answer to the last question
    complete     continue a text as it is, without template and turns

All three yield pieces of text and fill `statistics`. Close the generator to stop (contextlib.closing): what was written
by then stays in the turns. The answer k (counted from 0, over all three) is drawn with the seed `seed + k`, so that the
same actions with the same seed give the same texts, and a regenerated answer is another one.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from refquant.errors import ContextFullError, QuantError
from runtime.printable import Thoughts
from runtime.sampling import Sampler
from runtime.session import Progress, Session
from runtime.statistics import Statistics

if TYPE_CHECKING:
    from refquant.text import ChatTemplate, StreamDecoder
    from runtime.model import Model

Turn = dict[str, str]


class Conversation:
    """Turns with one model. `sampling` are arguments of Sampler, `limit` bounds an answer in tokens (None: n_ctx).

    `template` None uses the model's own. Public state: system, turns, sampling, limit; of the last answer `statistics`,
    and `thinking`, whether its template had already opened a thought for it.
    """

    def __init__(
        self,
        model: "Model",
        sampling: dict[str, float | int | None] | None = None,
        limit: int | None = None,
        system: str | None = None,
        template: "ChatTemplate | None" = None,
    ):
        self.model = model
        self.sampling = dict(sampling or {})
        seed = self.sampling.pop("seed", None)
        self.seed = secrets.randbits(32) if seed is None else seed
        Sampler(**self.sampling, seed=self.seed)  # wrong settings are refused here and not at the first answer
        self.limit, self.system, self.template = limit, system, template
        self.session = Session(model)
        self.turns: list[Turn] = []
        self.statistics: Statistics | None = None
        self.thinking = False
        self._answers = 0

    @property
    def messages(self) -> list[Turn]:
        """What the template is given: the system message, if there is one, and the turns."""
        return ([{"role": "system", "content": self.system}] if self.system else []) + self.turns

    def clear(self) -> None:
        """Forget the turns; the system message stays."""
        self.turns = []

    def ask(self, question: str, progress: Progress | None = None) -> Iterator[str]:
        """Yield the answer. Raises ContextFullError, with the turns as they were, when the question does not fit."""
        asked = {"role": "user", "content": question}
        template = self.model.template if self.template is None else self.template
        ids = template.encode([*self.messages, asked])
        self.thinking = self.model.tokenizer.decode(ids[-8:]).rstrip().endswith(Thoughts.OPEN)
        pieces, ended = [], False
        try:
            with closing(self._write(ids, self.model.tokenizer.stream(strip_space=True), progress)) as answer:
                for piece in answer:
                    pieces.append(piece)
                    yield piece
            ended = True
        finally:
            if pieces or ended:
                self.turns = [*self.turns, asked, {"role": "assistant", "content": "".join(pieces)}]

    def regenerate(self, progress: Progress | None = None) -> Iterator[str]:
        """Yield another answer to the last question; the old one comes back if nothing takes its place."""
        if not self.turns:
            raise QuantError("/regen: there is no answer yet, expected a question first")
        before = self.turns
        self.turns = before[:-2]
        try:
            with closing(self.ask(before[-2]["content"], progress)) as answer:
                yield from answer
        finally:
            if len(self.turns) < len(before):
                self.turns = before

    def complete(self, text: str, parse_special: bool = False, progress: Progress | None = None) -> Iterator[str]:
        """Yield what follows `text`. Spellings of control tokens are text unless `parse_special`."""
        ids = self.model.tokenizer.encode(text, add_special=True, parse_special=parse_special)
        if not ids:
            raise QuantError("prompt: no tokens, expected some text")
        yield from self._write(ids, self.model.tokenizer.stream(), progress)

    def _write(self, ids: list[int], decoder: "StreamDecoder", progress: Progress | None) -> Iterator[str]:
        session = self.session
        limit = session.n_ctx if self.limit is None else self.limit
        if len(ids) > session.n_ctx:
            trained = self.model.config.n_ctx_train
            room = (
                f"--ctx makes room for up to {trained}" if trained > session.n_ctx else "all that this model can read"
            )
            need = f"{len(ids)} tokens to read, expected at most {session.n_ctx}"
            raise ContextFullError(f"the context is full: {need} ({room})")
        record = Statistics(read=1, n_ctx=session.n_ctx, seed=(self.seed + self._answers) % 2**64)
        began = written = time.perf_counter()

        def watch(stage: str, done: int, total: int) -> None:
            record.read = done
            if progress is not None:
                progress(stage, done, total)

        tokens = self.model.generate(ids, limit, session=session, progress=watch, **self.sampling, seed=record.seed)
        self.statistics, self._answers = record, self._answers + 1
        try:
            with closing(tokens):
                for token in tokens:
                    if record.generated == 0:
                        written = time.perf_counter()
                    record.generated += 1
                    if piece := decoder.push(token):
                        yield piece
            record.stop = "length" if record.generated == limit else "end"
        except ContextFullError:
            record.stop = "context"
        finally:
            now = time.perf_counter()
            record.prompt_seconds = (written if record.generated else now) - began
            record.seconds = now - written if record.generated else 0.0
            record.reused, record.position = len(ids) - record.read, session.position
        if piece := decoder.flush():
            yield piece
