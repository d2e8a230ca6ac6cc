"""From logits to the next token: penalties, top-k, top-p, min-p, temperature, draw, in this order.

    penalize     l' = l / r where l > 0, l * r elsewhere, for tokens seen lately; then l' - count * f - s
    top_k        the k largest logits
    top_p        the shortest prefix of the sorted candidates whose probabilities sum to at least p
    min_p        candidates with probability >= p * (the largest probability), that is l >= max l + ln p
    temper       (l - max l) / t
    draw         one id, with probability softmax(l)

Shapes   logits (n_vocab,) float; between the steps `ids` (n,) int64 and `logits` (n,) of equal length.
Dtypes   comparisons in the dtype of the logits, probabilities and their sums in float64.
Order    ids ascend until a step sorts; sorted candidates descend by logit, equal logits ascend by id. So the outcome
         of a seed depends on the logits alone, never on the order in which a partial sort leaves ties.
Edges    every step keeps at least one candidate; -inf is a token that is never drawn; NaN and +inf are refused.
Greedy   temperature <= 0 takes the largest penalized logit, the lowest id among equals, and draws nothing.
Source   order, defaults and edge cases of llama.cpp, src/llama-sampling.cpp and common/common.h.
Differs  llama.cpp sums probabilities in float32; and its generator is another, so equal seeds give other texts.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from refquant.errors import GGUFError, NonFiniteError, RangeError, ShapeError

# Where a file says how its authors would sample: key of general.sampling.* -> argument of Sampler.
RECOMMENDATIONS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "repeat_last_n",
}


def penalize(
    logits: np.ndarray, history: Sequence[int], repeat: float = 1.0, frequency: float = 0.0, presence: float = 0.0
) -> np.ndarray:
    """A copy of `logits` in which the ids of `history` became less likely.

    An id that occurs c > 0 times: l / repeat if l > 0 else l * repeat, then - c * frequency - presence.
    Neutral: 1, 0, 0. Raises RangeError for ids outside the vocabulary.
    """
    ids, count = np.unique(np.asarray(history, np.int64), return_counts=True)
    if ids.size and (ids[0] < 0 or ids[-1] >= logits.size):
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise RangeError(f"sampling.penalize: history holds id {wrong}, expected 0..{logits.size - 1}")
    out = logits.copy()
    seen = logits[ids].astype(np.float64)
    with np.errstate(over="ignore"):  # a hard penalty may reach -inf, which is a token never drawn
        out[ids] = np.where(seen > 0, seen / repeat, seen * repeat) - count * frequency - presence
    return out


def top_k(ids: np.ndarray, logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates with the largest logits, sorted; k <= 0 or k >= n keeps all (k <= 0 in their order)."""
    if k <= 0:
        return ids, logits
    if k < ids.size:
        # The partition finds the k-th largest value; ties with it are then taken by position, not as it left them.
        border = np.partition(logits, ids.size - k)[ids.size - k]
        above = np.flatnonzero(logits > border)
        equal = np.flatnonzero(logits == border)[: k - above.size]
        kept = np.concatenate([above, equal])
        ids, logits = ids[kept], logits[kept]
    return _sort(ids, logits)


def top_p(ids: np.ndarray, logits: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """The fewest most likely candidates whose probabilities sum to at least p, sorted; p >= 1 keeps all, p = 0 one."""
    if p >= 1:
        return ids, logits
    probability = softmax(logits)
    # n candidates below (1 - p) / n weigh less than 1 - p together: the sum is reached before any of them is needed,
    # so a vocabulary need not be sorted. The largest is at least 1 / n and stays.
    likely = probability >= (1 - p) / ids.size
    likely[np.argmax(probability)] = True
    ids, logits, probability = ids[likely], logits[likely], probability[likely]
    order = np.lexsort((ids, -logits))
    reached = np.searchsorted(np.cumsum(probability[order]), p, side="left")
    kept = order[: reached + 1]
    return ids[kept], logits[kept]


def min_p(ids: np.ndarray, logits: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Candidates at least p times as likely as the likeliest, in their order; p = 0 keeps all, p > 1 as p = 1."""
    if p <= 0:
        return ids, logits
    kept = logits >= logits.max() + np.log(np.minimum(p, 1.0)).astype(logits.dtype)
    return ids[kept], logits[kept]


def temper(logits: np.ndarray, temperature: float) -> np.ndarray:
    """(l - max l) / temperature in float64, temperature > 0. The largest is 0, so tiny temperatures cannot overflow."""
    with np.errstate(over="ignore"):
        return (logits.astype(np.float64) - float(logits.max())) / temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(l - max l) / sum, float64. Needs one finite logit."""
    weight = np.exp(logits.astype(np.float64) - float(logits.max()))
    return weight / weight.sum()


def draw(ids: np.ndarray, probability: np.ndarray, rng: np.random.Generator) -> int:
    """One id: the first whose cumulative probability exceeds u * sum, u uniform in [0, 1). One number from `rng`."""
    cumulative = np.cumsum(probability)
    index = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(ids[min(index, ids.size - 1)])


@dataclass(frozen=True, slots=True)
class Sampler:
    """The chain with its settings and its random generator, the only state.

    temperature <= 0 is greedy; top_k <= 0, top_p = 1, min_p = 0, repeat_penalty = 1 and zero penalties switch a step
    off; repeat_last_n = -1 looks at the whole history, 0 at none of it. Without a seed one is drawn and kept in
    `.seed`, so that any text can be had again. Raises RangeError for settings that mean nothing.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(32))
        for name in ("top_k", "repeat_last_n", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise RangeError(f"Sampler: {name} = {value!r}, expected an integer")
        for name in ("temperature", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if not number or not np.isfinite(value):
                raise RangeError(f"Sampler: {name} = {value!r}, expected a finite number")
        for name in ("top_p", "min_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise RangeError(f"Sampler: {name} = {getattr(self, name)!r}, expected 0..1")
        if self.repeat_penalty <= 0:
            raise RangeError(f"Sampler: repeat_penalty = {self.repeat_penalty!r}, expected more than 0")
        if self.repeat_last_n < -1:
            raise RangeError(f"Sampler: repeat_last_n = {self.repeat_last_n}, expected -1 (all) or more")
        if not 0 <= self.seed < 2**64:
            raise RangeError(f"Sampler: seed = {self.seed}, expected 0..2**64 - 1")
        object.__setattr__(self, "_rng", np.random.default_rng(int(self.seed)))

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0

    def sample(self, logits: np.ndarray, history: Sequence[int] = ()) -> int:
        """The next id, given the logits (n_vocab,) and the ids so far, oldest first.

        Raises ShapeError, NonFiniteError (naming the first NaN or +inf), RangeError (an id outside the vocabulary).
        """
        if self.greedy:
            return int(np.argmax(self._penalized(logits, history)))
        ids, probability = self.candidates(logits, history)
        return draw(ids, probability, self._rng)

    def candidates(self, logits: np.ndarray, history: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """(ids, probabilities) from which `sample` draws; for a greedy sampler the one id with probability 1."""
        logits = self._penalized(logits, history)
        if self.greedy:
            return np.array([np.argmax(logits)]), np.ones(1)
        ids = np.arange(logits.size)
        ids, logits = top_k(ids, logits, self.top_k)
        ids, logits = top_p(ids, logits, self.top_p)
        ids, logits = min_p(ids, logits, self.min_p)
        return ids, softmax(temper(logits, self.temperature))

    def _penalized(self, logits: np.ndarray, history: Sequence[int]) -> np.ndarray:
        logits = _checked(logits)
        neutral = self.repeat_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
        if neutral or self.repeat_last_n == 0 or not len(history):
            return logits
        recent = history if self.repeat_last_n == -1 else history[-self.repeat_last_n :]
        penalized = penalize(logits, recent, self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return _checked(penalized)


def recommended(metadata: Mapping[str, object], given: Collection[str] = ()) -> dict[str, float | int]:
    """The arguments of `Sampler` that a GGUF file recommends under general.sampling.*; {} when it names none.

    The arguments in `given` are set already: what the file says about them is not even looked at. Otherwise
    raises GGUFError for a value that Sampler would refuse. xtc and mirostat, which this chain has not, are passed over.
    """
    found = {}
    for key, argument in RECOMMENDATIONS.items():
        value = metadata.get(f"general.sampling.{key}")
        if value is None or argument in given:
            continue
        try:
            Sampler(**{argument: value})
        except RangeError as error:
            raise GGUFError(f"metadata: general.sampling.{key} = {value!r}: {error}") from error
        found[argument] = value
    return found


def _checked(logits: np.ndarray) -> np.ndarray:
    """`logits` as a float array (n,), or the error that says what is wrong. The maximum alone shows NaN and +inf."""
    logits = np.asarray(logits)
    if logits.ndim != 1 or logits.size == 0 or logits.dtype.kind != "f":
        raise ShapeError(f"sampling: logits {logits.dtype}{logits.shape}, expected a float array (n_vocab,)")
    if not np.isfinite(logits.max()):
        wrong = np.flatnonzero(np.isnan(logits) | (logits == np.inf))
        if wrong.size:
            raise NonFiniteError(f"sampling: logits[{wrong[0]}] = {logits[wrong[0]]}, expected finite values or -inf")
        raise NonFiniteError("sampling: every logit is -inf, expected at least one token that can be drawn")
    return logits


def _sort(ids: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ids, -logits))
    return ids[order], logits[order]
