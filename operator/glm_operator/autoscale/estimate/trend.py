"""How much arrives: a level without the noise, and the slope it rises with. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, floor, sqrt

from glm_operator.autoscale.constants import (
    LEVEL_S,
    NOISE,
    NOISE_SIGMAS,
    RECENT_S,
    STEP_SIGMAS,
    SWELL_REFILL_S,
    SWELL_SIGMAS,
    SWELL_SPAN_S,
    TREND_PART_S,
    TREND_PARTS,
    TREND_SIGMAS,
)
from glm_operator.autoscale.series import DEMAND_WINDOW_S


@dataclass(frozen=True)
class Arrivals:
    """What arrived a second, at one moment."""

    at_s: float
    requests: float
    prompt_tokens: float
    running: float | None = None  # requests that ran; None: not known of every group
    groups: int = 0  # that served


def stepped(whole: float, lately: float, requests: float, noise: float = 1.0) -> float:
    """Return a rate over the window, or that over its newest samples where it stepped up by more than chance explains.

    A window of 45 s shows a fivefold burst fully after 45 s, its last 15 s after 15. requests: a second, over the
    window. It is for sums over groups: when a new one takes a share, its rate steps up and that of the others does not
    step down as fast.
    """
    chance = STEP_SIGMAS * noise * whole / sqrt(max(requests * RECENT_S, 1.0))
    return lately if lately > whole + chance else whole


def level(before: float | None, now: float, requests: float, elapsed_s: float) -> float:
    """Return a rate without the noise of single arrivals.

    Smoothed over LEVEL_S, except where it changed by more than chance explains: then it is what it is now. requests: a
    second, from which the size of that chance follows. It never falls when `now` rises.
    """
    if before is None:
        return now
    chance = before * NOISE * NOISE_SIGMAS / sqrt(max(requests * DEMAND_WINDOW_S, 1.0))
    if abs(now - before) > chance:
        return now
    return before + (now - before) * (1.0 - exp(-elapsed_s / LEVEL_S))


def noted(history: Sequence[Arrivals], now: Arrivals) -> tuple[Arrivals, ...]:
    """Return the history with this moment, as far back as a slope is looked for."""
    begin_s = now.at_s - 2 * TREND_PARTS * TREND_PART_S
    return (*(each for each in history if begin_s < each.at_s < now.at_s), now)


def swell(history: Sequence[Arrivals], now_s: float) -> float:
    """Return by how many the requests that run grow a second, where they do so faster than by chance; else 0.

    Where requests come one by one, those that run differ by the root of their number from one moment to another. So
    they are compared with half a minute ago, or with their mean until then where that is more: a moment at which few
    happened to run is no beginning of a growth. Longer answers show here first: nothing else tells them before they
    end. When a group goes, what runs in it is not seen any more, and the others fill up: that is no growth, nor is it
    when the group comes back.
    """
    now = history[-1].running if history and history[-1].at_s == now_s else None
    then = next((each for each in reversed(history) if now_s - each.at_s >= SWELL_SPAN_S), None)
    if now is None or then is None or then.running is None or now_s - then.at_s > 2.0 * SWELL_SPAN_S:
        return 0.0
    lately = [each.groups for each in history if now_s - each.at_s <= SWELL_REFILL_S]
    if any(after < before for before, after in pairwise(lately)):
        return 0.0
    until_then = [each.running for each in history if each.running is not None and each.at_s <= then.at_s]
    ran = max(then.running, sum(until_then) / len(until_then))
    grown = now - ran
    return grown / (now_s - then.at_s) if grown > SWELL_SIGMAS * sqrt(max(ran, 1.0)) else 0.0


@dataclass(frozen=True)
class Rise:
    """A steady rise of a rate: what it was in the newest part, and by how much it rises a second. 0: it does not."""

    newest: float = 0.0
    per_s: float = 0.0
    part_s: float = 0.0

    def after(self, seconds: float, most: float) -> float:
        """Return the rate in so many seconds, most at most. What was seen is half a part and half a window old."""
        old_s = (self.part_s + DEMAND_WINDOW_S) / 2.0
        return min(self.newest + self.per_s * (seconds + old_s), most)


def rises(points: Sequence[tuple[float, float]], requests: float, now_s: float) -> tuple[Rise, ...]:
    """Return by how much a rate rises, where it does so steadily, over parts of TREND_PART_S and of twice that.

    points: times and rates. The time is cut into TREND_PARTS parts. A rise counts that is there from nearly every part
    to the next (the second smallest difference), and that is larger over all of them than chance. So a step is no
    slope: it rises within two parts and not before or after. Short parts show a slope sooner, long ones where requests
    are few.
    """
    length = 2 * TREND_PARTS
    begin_s = now_s - length * TREND_PART_S
    sums, counts = [0.0] * length, [0] * length
    for at_s, rate in points:
        part = floor((at_s - begin_s) / TREND_PART_S)
        if 0 <= part <= length:
            part -= part == length  # what is seen right now
            sums[part] += rate
            counts[part] += 1
    short = _rise(sums[TREND_PARTS:], counts[TREND_PARTS:], requests, TREND_PART_S)
    of_two = [sums[part] + sums[part + 1] for part in range(0, length, 2)]
    counts_of_two = [counts[part] + counts[part + 1] for part in range(0, length, 2)]
    return short, _rise(of_two, counts_of_two, requests, 2.0 * TREND_PART_S)


def _rise(sums: Sequence[float], counts: Sequence[int], requests: float, part_s: float) -> Rise:
    if not all(counts):
        return Rise()
    means = [whole / count for whole, count in zip(sums, counts, strict=True)]
    steps = sorted(later - earlier for earlier, later in pairwise(means))
    chance = means[0] * NOISE * TREND_SIGMAS / sqrt(max(requests * part_s, 1.0))
    if steps[1] <= 0.0 or means[-1] - means[0] <= chance:
        return Rise()
    newest = min(means[-1], means[-2] + steps[len(steps) // 2])  # one part alone may stand out by chance
    return Rise(newest, steps[1] / part_s, part_s)
