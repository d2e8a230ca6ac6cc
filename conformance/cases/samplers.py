"""From logits to a token: which tokens stay, with which probabilities, and which one a given number draws."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Chain": {
        "kind": "ordinary",
        "description": "Penalties, top-k, top-p, min-p, temperature, in this order, each alone and all together.",
        "effect": "Settings that were tuned elsewhere give other text here.",
    },
    "Ties": {
        "kind": "tie",
        "description": "Equal logits on both sides of the k-th place: the lower ids stay.",
        "effect": "Which of equal tokens survive depends on a sort.",
    },
    "Minus": {
        "kind": "edge",
        "description": "Logits of minus infinity: tokens that must never be drawn.",
        "effect": "A grammar that forbids tokens is not obeyed, or NaN appears.",
    },
    "Extreme": {
        "kind": "edge",
        "description": "A temperature of 1e-3, or logits of 1e4 and -1e4.",
        "effect": "exp overflows, and every probability is NaN.",
    },
    "Penalty": {
        "kind": "ordinary",
        "description": "Positive logits of recent tokens are divided by the penalty, negative ones multiplied.",
        "effect": "A penalty makes a token that was unlikely more likely.",
    },
    "Draw": {
        "kind": "ordinary",
        "description": (
            "The first token, in descending order of probability and ascending id, at which the cumulated probability"
            " exceeds u: the numbers 0, 0.25, 0.5, 0.75 and 0.999."
        ),
        "effect": "A seed gives other text; a draw of 0 or near 1 leaves the table.",
    },
    "NotFinite": {
        "kind": "refusal",
        "description": "A NaN, plus infinity, or nothing but minus infinity.",
        "effect": "Some token comes out, and the fault shows nowhere.",
    },
}
OFF = {"repeat_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}


def cases() -> Iterator[Case]:
    """Candidates under each setting, draws, refusals."""
    rng = np.random.default_rng(21)
    logits = (rng.standard_normal(64) * 3).astype(np.float32)
    ties = np.repeat(np.float32([3, 2, 1, 0]), 8)[rng.permutation(32)]
    minus = logits.copy()
    minus[::3] = -np.inf
    wide = logits.copy()
    wide[5], wide[6] = 1e4, -1e4
    history = np.array([int(np.argmax(logits)), 3, 3, int(np.argmin(logits))], np.int32)
    each = {
        "plain": {},
        "top-k": {"top_k": 5},
        "top-p": {"top_p": 0.8},
        "min-p": {"min_p": 0.1},
        "cold": {"temperature": 0.3},
        "hot": {"temperature": 2.5},
        "all": {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "temperature": 0.8},
    }
    for label, settings in each.items():
        yield _candidates("chain", label, logits, settings, ("Chain",))
    penalized = {"repeat_penalty": 1.3, "top_k": 10}
    yield _candidates("chain", "penalty", logits, penalized, ("Chain", "Penalty"), history)
    yield _candidates("chain", "top-k-ties", ties, {"top_k": 12}, ("Ties",))
    yield _candidates("chain", "minus-infinity", minus, {"top_k": 10, "top_p": 0.9}, ("Minus",))
    yield _candidates("chain", "freezing", logits, {"top_k": 8, "temperature": 1e-3}, ("Extreme",))
    yield _candidates("chain", "wide", wide, {"top_k": 8}, ("Extreme",))
    for u in (0.0, 0.25, 0.5, 0.75, 0.999):
        given = {"logits": logits, "uniform": np.float64(u), "history": np.zeros(0, np.int32)}
        yield Case("sampler.chain", "draw", f"{u:g}", "draw", given, OFF | each["all"], ("Draw",))
    greedy = {"logits": ties, "uniform": np.float64(0.9), "history": np.zeros(0, np.int32)}
    yield Case("sampler.chain", "draw", "greedy", "draw", greedy, OFF | {"temperature": 0.0}, ("Ties",))
    bad = {"nan": np.nan, "infinity": np.inf}
    wrong = {name: np.where(np.arange(64) == 7, np.float32(value), logits) for name, value in bad.items()}
    for label, x in {**wrong, "nothing": np.full(8, -np.inf, np.float32)}.items():
        yield _candidates("refuse", label, x.astype(np.float32), {}, ("NotFinite",), result="invalid")


def _candidates(group, label, logits, settings, flags, history=None, result="valid") -> Case:
    given = {"logits": logits, "history": np.zeros(0, np.int32) if history is None else history}
    # float32 exponentials of differences up to 30, and their sum: far below 1e-5 relative
    words = {"probabilities": ("relative", 1e-5)}
    return Case("sampler.chain", group, label, "candidates", given, OFF | settings, flags, result, words)
