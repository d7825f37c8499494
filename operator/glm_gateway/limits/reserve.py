"""Reserve, settle, release: the whole of limits as functions of what was counted. All scopes of a caller, or none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from glm_gateway.limits.counters import MINUTE_S, Counters, month_after, month_of
from glm_gateway.limits.limit import Limits, Measure
from glm_gateway.limits.tokens import Usage

_OF_PROMPTS = (Measure.PROMPT_TOKENS,)
_ROUNDING_S = 1e-6  # of moments: who waits exactly as long as told is let in


@dataclass(frozen=True)
class Scope:
    """Whose limits: a key's own, or those that a group of keys has in common. name: as people know it.

    is_more: what is asked for is more for a request that runs already.
    """

    name: str
    limits: Limits
    is_more: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """retry_after_s: after which the same request would be let in if nobody else asked; None: never as it is."""

    scope: str
    limit: str  # a Measure, or concurrency, context, budget
    most: int
    asked: float
    left: float
    retry_after_s: float | None


@dataclass(frozen=True)
class Reservation:
    """What was taken for one request, to be settled or released once. month: that its expense counts in."""

    scopes: tuple[Scope, ...]
    usage: Usage
    month: str


@dataclass(frozen=True)
class Granted:
    """counters: of each scope by name, with the request in them. overlooked: refusals of scopes that only count."""

    reservation: Reservation
    counters: Mapping[str, Counters]
    overlooked: tuple[Refusal, ...]


def reserve(scopes: Sequence[Scope], counters: Mapping[str, Counters], usage: Usage, now: float) -> Granted | Refusal:
    """Return the counters with this request in them, or the limit that holds it up longest.

    usage: the most that it may take. now: seconds since 1970. A scope that has no counters yet has used nothing.
    """
    refusals = [
        (scope, refusal)
        for scope in scopes
        for refusal in _refusals(scope, counters.get(scope.name, Counters()), usage, now)
    ]
    strict = [refusal for scope, refusal in refusals if not scope.limits.only_counts]
    if strict:
        return max(strict, key=lambda each: math.inf if each.retry_after_s is None else each.retry_after_s)
    month = month_of(now)
    taken = {
        scope.name: counters.get(scope.name, Counters())
        .take(scope.limits.amounts(usage), scope.limits, now)
        .spend(scope.limits.expense(usage), month)
        .running(0 if scope.is_more else +1)
        for scope in scopes
    }
    overlooked = tuple(refusal for _, refusal in refusals)
    return Granted(Reservation(tuple(scopes), usage, month), taken, overlooked)


def settle(reservation: Reservation, counters: Mapping[str, Counters], used: Usage, now: float) -> dict[str, Counters]:
    """Return the counters after the request has ended: what it did not use is given back, what it used beyond is owed.

    A request that used nothing, as one that no group took, still counts as a request.
    """
    settled = {}
    for scope in reservation.scopes:
        limits, known = scope.limits, counters.get(scope.name, Counters())
        reserved, actual = limits.amounts(reservation.usage), limits.amounts(used)
        differences = {measure: actual[measure] - reserved[measure] for measure in reserved}
        expense = limits.expense(used) - limits.expense(reservation.usage)
        counted = known.take(differences, limits, now).spend(expense, reservation.month)
        settled[scope.name] = counted.running(0 if scope.is_more else -1)
    return settled


def release(reservation: Reservation, counters: Mapping[str, Counters], now: float) -> dict[str, Counters]:
    """Return the counters as if the request had never come: it was refused further on."""
    released = settle(reservation, counters, Usage(), now)
    return {
        scope.name: released[scope.name].take({Measure.REQUESTS: -1.0}, scope.limits, now)
        for scope in reservation.scopes
    }


def scopes_of_more_prompt(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """Return the scopes against which a prompt that is longer than reserved is reserved once more: minutes of prompts,
    and budgets. What is taken from them is released beside the end of the request.
    """
    found = []
    for scope in scopes:
        measured = {measure: most for measure, most in scope.limits.per_minute.items() if measure in _OF_PROMPTS}
        if measured or scope.limits.budget is not None:
            limits = replace(scope.limits, per_minute=measured, concurrency=None, context_tokens=None)
            found.append(Scope(scope.name, limits, is_more=True))
    return tuple(found)


def scopes_of_requests(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """Return the scopes against which a request is reserved that computes nothing: how many there are, and run."""
    return tuple(
        Scope(
            scope.name,
            replace(
                scope.limits,
                per_minute={each: most for each, most in scope.limits.per_minute.items() if each is Measure.REQUESTS},
                context_tokens=None,
            ),
        )
        for scope in scopes
    )


def of_whole(refusal: Refusal, scopes: Sequence[Scope], reserved: Usage, more: Usage) -> Refusal:
    """Return the refusal of more as one of the whole request, which has then given back what it had reserved."""
    limits = next(scope.limits for scope in scopes if scope.name == refusal.scope)
    if refusal.limit == "budget":
        before, whole = float(limits.expense(reserved)), float(limits.expense(reserved + more))
    else:
        measure = Measure(refusal.limit)
        before, whole = limits.amounts(reserved)[measure], limits.amounts(reserved + more)[measure]
    return replace(
        refusal,
        asked=whole,
        left=min(float(refusal.most), refusal.left + before),
        retry_after_s=None if whole > refusal.most else refusal.retry_after_s,
    )


def _refusals(scope: Scope, counters: Counters, usage: Usage, now: float) -> list[Refusal]:
    limits, found = scope.limits, []

    def refuse(limit: str, most: int, asked: float, left: float, retry_after_s: float | None) -> None:
        found.append(
            Refusal(
                scope=scope.name, limit=limit, most=most, asked=asked, left=max(0.0, left), retry_after_s=retry_after_s
            )
        )

    if limits.context_tokens is not None and usage.total > limits.context_tokens:
        refuse("context", limits.context_tokens, usage.total, limits.context_tokens, None)
    if limits.concurrency is not None and counters.num_running >= limits.concurrency:
        left = limits.concurrency - counters.num_running
        refuse("concurrency", limits.concurrency, 1, left, 1.0 if limits.concurrency else None)
    if limits.budget is not None:
        expense, spent = limits.expense(usage), counters.spent_in(month_of(now))
        if expense and spent + expense > limits.budget.amount:  # what costs nothing passes none
            never = expense > limits.budget.amount
            retry_after_s = None if never else month_after(now) - now
            refuse("budget", limits.budget.amount, expense, limits.budget.amount - spent, retry_after_s)
    for measure, amount in limits.amounts(usage).items():
        most, level = limits.per_minute[measure], counters.level(measure, limits, now)
        if amount > level + _ROUNDING_S * max(1, most):
            never = amount > most
            refuse(measure, most, amount, level, None if never else (amount - level) * MINUTE_S / most)
    return found
