"""What a request is expected to take when it does not say: a running mean of what the key's answers had. Pure.

The mean is of all tokens that were generated, thoughts among them, by key and model. The first FEW requests count the
same, later ones 1 / FEW: it follows a caller that changes. A reservation is never below FLOOR, so that a row of empty
answers lets no flood in; never above what the context has room for; and never below 1, the law that everything holds.
"""

from collections import OrderedDict
from dataclasses import dataclass

from glm_gateway.limits.tokens import Prices, Usage

FIRST = 1024
"""Of a key whose answers are not known yet."""

FLOOR = 128
FEW = 32
MAX_MEANS = 10_000
"""Pairs of key and model; who asked longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Of generated tokens. thinking: the part of them, 0 to 1, that were thoughts."""

    count: int = 0
    tokens: float = 0.0
    thinking: float = 0.0

    def after(self, used: Usage) -> "Mean":
        """Return the mean with one more answer in it."""
        count = min(self.count + 1, FEW)
        generated = used.answer + used.thinking
        part = used.thinking / generated if generated else 0.0
        return Mean(
            count, self.tokens + (generated - self.tokens) / count, self.thinking + (part - self.thinking) / count
        )


UNKNOWN = Mean()


def generated_tokens(mean: Mean, max_tokens: int | None, prompt: int, context: int) -> int:
    """Return how many tokens a request may generate, at least 1.

    max_tokens: of the request, taken at its word where the context has room for it; None: it says nothing.
    """
    room = max(1, context - prompt)
    wanted = max_tokens if max_tokens is not None else max(FLOOR, round(mean.tokens)) if mean.count else FIRST
    return max(1, min(wanted, room))


def usage_to_reserve(
    mean: Mean,
    *,
    prompt: int,
    max_tokens: int | None,
    context: int,
    num_answers: int = 1,
    shares_context: bool = True,
    prices: Prices,
) -> Usage:
    """Return what is reserved for a request: its prompt, nothing of it cached, and what may be generated.

    shares_context: whether an answer has its context together with all of the prompt, which is one then. Of several
    prompts nobody knows yet which is long: each answer may have the room of a context.

    Thoughts and answers are told apart only afterwards. Where one of them costs more, all is reserved as that one: a
    budget of money is never passed. Else they are split as the key's answers were.
    """
    beside = prompt if shares_context else 0
    generated = generated_tokens(mean, max_tokens, beside, context) * num_answers
    if prices.thinking != prices.answer:
        thinking = generated if prices.thinking > prices.answer else 0
    else:
        thinking = min(generated, round(generated * mean.thinking))
    return Usage(prompt=prompt, answer=generated - thinking, thinking=thinking)


def room_of_context(bound: int, prompt: int, num_answers: int, shares_context: bool) -> int:
    """Return the context in which each answer has its part of what the prompt leaves of a bound, at least a token.

    bound: of the prompt and all answers together. shares_context: as of usage_to_reserve.
    """
    return (prompt if shares_context else 0) + max(1, (bound - prompt) // num_answers)


class Means:
    """The means of all keys and models, bounded."""

    def __init__(self, most: int = MAX_MEANS) -> None:
        self._most = most
        self._means: OrderedDict[tuple[str, str], Mean] = OrderedDict()

    def of(self, key: str, model: str) -> Mean:
        return self._means.get((key, model), UNKNOWN)

    def note(self, key: str, model: str, used: Usage) -> None:
        """Take what an answer had that came to its own end: one that was cut short says nothing of the next."""
        self._means[key, model] = self.of(key, model).after(used)
        self._means.move_to_end((key, model))
        while len(self._means) > self._most:
            self._means.popitem(last=False)
