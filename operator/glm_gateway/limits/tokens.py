"""What a request takes, counted in tokens and in money."""

from dataclasses import dataclass

PICO = 10**12
"""Money is counted in whole millionths of a millionth of its unit: sums of it are exact."""

_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. prompt: all of the prompt, of which cached were there before. answer: without thinking."""

    prompt: int = 0
    cached: int = 0
    answer: int = 0
    thinking: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.answer + self.thinking

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.answer + other.answer,
            self.thinking + other.thinking,
        )


@dataclass(frozen=True, kw_only=True)
class Prices:
    """In PICO for a million tokens. cached: of prompt tokens that were there before."""

    prompt: int = 0
    cached: int = 0
    answer: int = 0
    thinking: int = 0

    def cost(self, usage: Usage) -> int:
        """Return the price of a request in PICO, rounded up: no token is free that has a price."""
        times_a_million = (
            self.prompt * (usage.prompt - usage.cached)
            + self.cached * usage.cached
            + self.answer * usage.answer
            + self.thinking * usage.thinking
        )
        return -(-times_a_million // _MILLION)
