"""Scopes on their way to the script, counters on their way back. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glm_gateway.limits.counters import Bucket, Counters
from glm_gateway.limits.limit import Measure, Unit
from glm_gateway.limits.reserve import Scope
from glm_gateway.limits.tokens import Usage

BASE = 10**12
"""Of the two digits in which sums are sent and kept: the second one is below it, the first one is the rest."""

Json = dict[str, Any]

_MEASURES = {measure.value.encode(): measure for measure in Measure}


@dataclass(frozen=True)
class Reply:
    """Of the script. now: by its server. month: of that moment. states: of the scopes asked for, in their order."""

    verdict: str
    now: float
    month: str
    states: tuple[Sequence[bytes], ...]

    def counters(self, scopes: Sequence[Scope], shift_s: float = 0.0) -> dict[str, Counters]:
        """Return the counters of the scopes asked for. shift_s: from the server's clock to the caller's."""
        return {
            scope.name: shifted(_counters(scope, state, self.month), shift_s)
            for scope, state in zip(scopes, self.states, strict=True)
        }


def reply_in(told: Sequence[Any]) -> Reply:
    return Reply(told[0].decode(), float(told[1]), told[2].decode(), tuple(told[3:]))


def reserved_of(scope: Scope, usage: Usage) -> Json:
    """Return what the script must know of a scope to let a request in or not."""
    limits = scope.limits
    told = changed_of(scope, limits.amounts(usage), usage.total, limits.prices.cost(usage))
    told["only_counts"] = limits.only_counts
    told["is_more"] = scope.is_more
    told["is_beyond_context"] = limits.context_tokens is not None and usage.total > limits.context_tokens
    if limits.concurrency is not None:
        told["concurrency"] = limits.concurrency
    if limits.budget is not None:
        told |= {"budget": digits(limits.budget.amount), "unit": str(limits.budget.unit)}
    return told


def settled_of(scope: Scope, reserved: Usage, used: Usage, *, is_released: bool) -> Json:
    """Return by how much a scope changes when a request has ended, as reserve.settle and reserve.release have it."""
    limits = scope.limits
    before, after = limits.amounts(reserved), limits.amounts(used)
    amounts = {measure: after[measure] - before[measure] for measure in before}
    if is_released and Measure.REQUESTS in amounts:
        amounts[Measure.REQUESTS] -= 1.0
    money = limits.prices.cost(used) - limits.prices.cost(reserved)
    told = changed_of(scope, amounts, used.total - reserved.total, money)
    told["used"] = {"tokens": digits(used.total), "money": digits(limits.prices.cost(used))}
    return told


def changed_of(scope: Scope, amounts: Mapping[Measure, float], tokens: int, money: int) -> Json:
    """Return what is taken from a scope: of its minutes, and of its month in both units, whichever its budget has."""
    return {
        "name": scope.name,
        "measures": [
            [str(measure), scope.limits.per_minute[measure], float(amount)] for measure, amount in amounts.items()
        ],
        "expense": {"tokens": digits(tokens), "money": digits(money)},
    }


def digits(amount: int) -> tuple[int, int]:
    """Return an amount in two digits to the base. Of one below 0 the first is, too."""
    return divmod(amount, BASE)


def shifted(counters: Counters, shift_s: float) -> Counters:
    """Return counters by a clock that is ahead of theirs."""
    moved = {measure: Bucket(bucket.level, bucket.at + shift_s) for measure, bucket in counters.buckets.items()}
    return replace(counters, buckets=moved)


def _counters(scope: Scope, state: Sequence[bytes], month: str) -> Counters:
    tokens, money = int(state[1]) * BASE + int(state[2]), int(state[3]) * BASE + int(state[4])
    budget = scope.limits.budget
    spent = 0 if budget is None else tokens if budget.unit is Unit.TOKENS else money
    buckets = {}
    for measure, bucket in zip(state[5::2], state[6::2], strict=True):
        if measure in _MEASURES:  # or of a gateway of another version
            level, at = bucket.split()
            buckets[_MEASURES[measure]] = Bucket(float(level), float(at))
    return Counters(buckets=buckets, num_running=int(state[0]), month=month, spent=spent)
