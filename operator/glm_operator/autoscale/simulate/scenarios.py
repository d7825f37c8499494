"""Loads that autoscalers are measured on. Pure and seeded: the same name gives the same requests.

All are for a group like calibration.H200_AIR_FP8, which carries about one request a second of the mix of a chat
service: prompts of 1,800 tokens, half of the requests thinking for 1,700 tokens, answers of 450.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8
from glm_operator.autoscale.simulate.run import Setup
from glm_operator.autoscale.simulate.seen.faults import NO_FAULTS, Faults
from glm_operator.autoscale.simulate.trace import Arrival

CHAT_SLO = Slo.model_validate(
    {
        "classes": [
            {"name": "chat", "match": {"thinking": "Disabled"}, "ttft": "2s", "itl": "80ms"},
            {"name": "thinking", "match": {"thinking": "Enabled"}, "ttft": "4s", "itl": "80ms"},
        ]
    }
)
CODE_SLO = Slo.model_validate({"classes": [{"name": "code", "ttft": "3s", "e2e": "20s"}]})
SCALING = Scaling.model_validate({"min": 1, "max": 20})


@dataclass(frozen=True)
class Mix:
    """Lengths of requests: medians of log-normal distributions, in tokens."""

    prompt: float = 1500.0
    answer: float = 400.0
    thinking: float = 1500.0
    thinking_share: float = 0.5
    spread: float = 0.5  # of the logarithm


MIX = Mix()


def requests(
    rate: Callable[[float], float],
    duration_s: float,
    mix: Callable[[float], Mix],
    seed: int,
    *,
    most_rps: float,
) -> tuple[Arrival, ...]:
    """Draw arrivals of a Poisson process whose rate changes, by thinning. most_rps: no rate is larger."""
    draw = random.Random(seed)  # noqa: S311  no secret
    found: list[Arrival] = []
    at_s = 0.0
    while True:
        at_s += draw.expovariate(most_rps)
        if at_s >= duration_s:
            return tuple(found)
        if draw.random() * most_rps <= rate(at_s):
            found.append(_draw(at_s, mix(at_s), draw))


def _draw(at_s: float, mix: Mix, draw: random.Random) -> Arrival:
    def tokens(median: float) -> int:
        return max(1, min(16_000, round(median * math.exp(draw.gauss(0.0, mix.spread)))))

    is_thinking = draw.random() < mix.thinking_share
    thinking = tokens(mix.thinking) if is_thinking else 0
    return Arrival(at_s, tokens(mix.prompt), thinking + tokens(mix.answer), thinking, is_thinking)


def _always(mix: Mix) -> Callable[[float], Mix]:
    return lambda _: mix


def _between(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Return a function that goes in straight lines from point to point, of second and value."""

    def value(at_s: float) -> float:
        before = points[0]
        for point in points:
            if at_s < point[0]:
                share = (at_s - before[0]) / (point[0] - before[0])
                return before[1] + share * (point[1] - before[1])
            before = point
        return before[1]

    return value


def ramp(seed: int = 1) -> tuple[Arrival, ...]:
    """2 requests a second, up to 10 within 20 minutes, there for 10, down to 1 within 15, there for 15."""
    rate = _between(((0, 2), (300, 2), (1500, 10), (2100, 10), (3000, 1), (3900, 1)))
    return requests(rate, 3900.0, _always(MIX), seed, most_rps=10.0)


def spike(seed: int = 2) -> tuple[Arrival, ...]:
    """2 requests a second, five times that within 5 s, for 10 minutes, and 2 again."""
    rate = _between(((0, 2), (1200, 2), (1205, 10), (1800, 10), (1805, 2), (3600, 2)))
    return requests(rate, 3600.0, _always(MIX), seed, most_rps=10.0)


def diurnal(seed: int = 3) -> tuple[Arrival, ...]:
    """A day within 2 hours: 1 to 7 requests a second, few of which think in its first half and most in its second."""

    def rate(at_s: float) -> float:
        return 4.0 - 3.0 * math.cos(2 * math.pi * at_s / 7200.0)

    def mix(at_s: float) -> Mix:
        return Mix(thinking_share=0.15 if at_s < 3600.0 else 0.75)

    return requests(rate, 7200.0, mix, seed, most_rps=7.0)


def leak(seed: int = 4) -> tuple[Arrival, ...]:
    """3 requests a second all the time; within 90 minutes their prompts grow to three times their length."""

    def mix(at_s: float) -> Mix:
        return Mix(prompt=1500.0 * (1 + 2 * min(1.0, at_s / 5400.0)))

    return requests(lambda _: 3.0, 5400.0, mix, seed, most_rps=3.0)


def steady(seed: int = 5) -> tuple[Arrival, ...]:
    """4 requests a second, with 5 % of noise from minute to minute."""
    draw = random.Random(seed + 100)  # noqa: S311  no secret
    noise = [1 + draw.gauss(0.0, 0.05) for _ in range(61)]
    return requests(lambda at_s: 4.0 * noise[int(at_s // 60)], 3600.0, _always(MIX), seed, most_rps=4.0 * max(noise))


def code(trace: Sequence[Arrival], copies: int = 6, within_s: float = 900.0, seed: int = 6) -> tuple[Arrival, ...]:
    """The code trace several times, each copy moved by some seconds, so that its bursts and its pauses remain."""
    draw = random.Random(seed)  # noqa: S311  no secret
    shifts = [0.0, *(draw.uniform(0.0, within_s) for _ in range(copies - 1))]
    moved = [Arrival(each.at_s + shift, each.prompt_tokens, each.output_tokens) for shift in shifts for each in trace]
    return tuple(sorted(moved, key=lambda each: each.at_s))


@dataclass(frozen=True)
class Scenario:
    """A load with what is promised and what goes wrong."""

    name: str
    setup: Setup


COLD_STARTS_S = {60: (55.0, 58.0, 60.0, 62.0, 66.0, 72.0), 300: (270.0, 285.0, 300.0, 310.0, 330.0, 360.0)}
"""Starts that are drawn from, by their usual length."""


def scenarios(trace: Sequence[Arrival], cold_start_s: int) -> list[Scenario]:
    """Return every load, on groups that take so long to start, and faults on the ramp. trace: the code trace."""
    loads = {
        "ramp": (ramp(), CHAT_SLO, 3),
        "spike": (spike(), CHAT_SLO, 3),
        "diurnal": (diurnal(), CHAT_SLO, 2),
        "leak": (leak(), CHAT_SLO, 4),
        "steady": (steady(), CHAT_SLO, 5),
        "code": (code(trace), CODE_SLO, 3),
    }
    faults = {
        "lost": Faults(lost_share=0.1),
        "away": Faults(away=((1200.0, 1320.0), (2400.0, 2520.0))),
        "frozen": Faults(frozen=((900.0, 1800.0), (2400.0, 3300.0))),
        "silent": Faults(silent=((900.0, 1800.0), (2400.0, 3300.0))),
    }
    found = [
        Scenario(name, _setup(arrivals, slo, start, cold_start_s, NO_FAULTS))
        for name, (arrivals, slo, start) in loads.items()
    ]
    arrivals, slo, start = loads["ramp"]
    found += [
        Scenario(f"ramp, {name}", _setup(arrivals, slo, start, cold_start_s, fault)) for name, fault in faults.items()
    ]
    return found


def _setup(arrivals: tuple[Arrival, ...], slo: Slo, start: int, cold_start_s: int, faults: Faults) -> Setup:
    return Setup(
        arrivals=arrivals,
        slo=slo,
        scaling=SCALING,
        calibration=H200_AIR_FP8,
        start_groups=start,
        cold_start_s=COLD_STARTS_S[cold_start_s],
        faults=faults,
    )
