"""What waits at gateways from look to look, and what of all arrivals no worker has counted for it. Pure.

A request is counted by a worker when it gets there. Those that wait at a gateway have arrived as well, and those that
leave it arrive at a worker now, though they came before. So what arrives is what workers count and what is held more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_operator.autoscale.constants import RECENT_S
from glm_operator.autoscale.series import DEMAND_WINDOW_S


@dataclass(frozen=True)
class Held:
    """What waited at all gateways of a deployment, at one moment."""

    at_s: float
    requests: float
    prompt_tokens: float


@dataclass(frozen=True)
class Rise:
    """By how much a second more waited over the demand window; below 0: less."""

    requests: float = 0.0
    prompt_tokens: float = 0.0


def noted(history: Sequence[Held], now: Held) -> tuple[Held, ...]:
    """Return the history with this moment, as far back as arrivals are counted."""
    return (*(each for each in history if now.at_s - DEMAND_WINDOW_S <= each.at_s < now.at_s), now)


def rise(history: Sequence[Held], now_s: float) -> Rise:
    """Return how fast it rises. Of two looks within moments no rate is made: it is spread over RECENT_S.

    While a gateway is silent the last word holds, until it is out of the window. It never falls when more waits now.
    """
    known = [each for each in history if now_s - DEMAND_WINDOW_S <= each.at_s <= now_s]
    if len(known) < 2:
        return Rise()
    first, last = known[0], known[-1]
    span_s = max(last.at_s - first.at_s, RECENT_S)
    return Rise((last.requests - first.requests) / span_s, (last.prompt_tokens - first.prompt_tokens) / span_s)
