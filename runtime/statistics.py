"""What an answer cost: tokens, seconds, and why it ended, as a line for people and as a dict for programs."""

from dataclasses import dataclass

STOPS = {
    "end": "",
    "length": "stopped at the limit of tokens (-n)",
    "context": "stopped: the context is full",
    "interrupted": "stopped",
}


@dataclass(slots=True)
class Statistics:
    """Counts in tokens, times in seconds. `stop` is a key of STOPS.

    prompt tokens = `reused` from the turns before + `read` now; `prompt_seconds` lasts until the first token is chosen,
    `seconds` from there to the end, so that `generated - 1` tokens were computed within it.
    """

    read: int = 0
    reused: int = 0
    generated: int = 0
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    position: int = 0
    n_ctx: int = 0
    seed: int = 0
    stop: str = "interrupted"

    @property
    def prompt_rate(self) -> float:
        """Tokens of the prompt read in a second."""
        return self.read / self.prompt_seconds if self.prompt_seconds > 0 else 0.0

    @property
    def rate(self) -> float:
        """Tokens written in a second; the first one belongs to the prompt."""
        return (self.generated - 1) / self.seconds if self.seconds > 0 and self.generated > 1 else 0.0

    def __str__(self) -> str:
        parts = [f"{_tokens(self.generated)}{_speed(self.rate)}"]
        reused = f", {self.reused} reused" if self.reused else ""
        parts.append(f"prompt {_tokens(self.read)}{_speed(self.prompt_rate)}{reused}")
        parts.append(f"context {self.position} of {self.n_ctx}")
        if STOPS[self.stop]:
            parts.append(STOPS[self.stop])
        return " · ".join(parts)

    def as_dict(self) -> dict[str, float | int | str]:
        """Everything under names that explain themselves, ready for JSON."""
        return {
            "prompt_tokens": self.read + self.reused,
            "prompt_tokens_reused": self.reused,
            "prompt_seconds": self.prompt_seconds,
            "prompt_tokens_per_second": self.prompt_rate,
            "generated_tokens": self.generated,
            "generation_seconds": self.seconds,
            "generated_tokens_per_second": self.rate,
            "stop": self.stop,
            "seed": self.seed,
            "context_used": self.position,
            "context": self.n_ctx,
        }


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"


def _speed(rate: float) -> str:
    return f" at {rate:.3g}/s" if 0 < rate < 100 else f" at {rate:.0f}/s" if rate else ""
