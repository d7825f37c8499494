"""Counters in this process, for a gateway of one replica."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from glm_gateway.limits.counters import MINUTE_S, Counters, month_of
from glm_gateway.limits.limit import Unit
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope, release, reserve, settle
from glm_gateway.limits.store import Prior, nothing_prior
from glm_gateway.limits.tokens import Usage

MAX_SCOPES = 50_000
"""That are known before idle ones are forgotten: an issuer may know any number of callers."""


class MemoryStore:
    """A Store of one event loop: nothing here waits, so nothing comes in between.

    Minutes and running requests begin at nothing with the process. What was spent of a month is asked of `prior` when a
    scope is seen first, and when its budget changes from tokens to money or comes to be.
    """

    def __init__(self, prior: Prior = nothing_prior, *, max_scopes: int = MAX_SCOPES) -> None:
        self._prior = prior
        self._max_scopes = max_scopes
        self._forget_at = max_scopes
        self._counters: dict[str, Counters] = {}
        self._units: dict[str, Unit | None] = {}

    async def reserve(self, scopes: Sequence[Scope], usage: Usage, now: float) -> Granted | Refusal:
        if len(self._units) >= self._forget_at:
            self._forget_idle(now)
        for scope in scopes:
            self._know(scope, now)
        found = reserve(scopes, self._counters, usage, now)
        if isinstance(found, Granted):
            self._counters.update(found.counters)
        return found

    async def settle(self, reservation: Reservation, used: Usage, now: float) -> Mapping[str, Counters]:
        settled = settle(self._as_counted(reservation), self._counters, used, now)
        self._counters.update(settled)
        return settled

    async def release(self, reservation: Reservation, now: float) -> Mapping[str, Counters]:
        released = release(self._as_counted(reservation), self._counters, now)
        self._counters.update(released)
        return released

    async def counters(self, scopes: Sequence[Scope]) -> Mapping[str, Counters]:
        return {scope.name: self._counters.get(scope.name, Counters()) for scope in scopes}

    def hear(self, scope: str, month: str, tokens: int, money: int) -> None:
        """Count what another process has spent of a scope's month. Of a scope that was never asked for it is in `prior`
        by then.
        """
        unit, known = self._units.get(scope), self._counters.get(scope)
        if unit is not None and known is not None:
            self._counters[scope] = known.spend(tokens if unit is Unit.TOKENS else money, month)

    def _know(self, scope: Scope, now: float) -> None:
        unit = _unit_of(scope)
        if scope.name in self._units and self._units[scope.name] == unit:
            return
        self._units[scope.name] = unit
        month = month_of(now)
        spent = 0 if unit is None else self._prior(scope.name, unit, month)
        self._counters[scope.name] = replace(self._counters.get(scope.name, Counters()), month=month, spent=spent)

    def _forget_idle(self, now: float) -> None:
        """Forget scopes of which a new one would be the same: nothing runs, and all of its minute is there again.

        One that has spent of a budget stays: not everywhere is a journal to ask.
        """
        idle = [
            name
            for name, known in self._counters.items()
            if not known.num_running
            and not known.spent_in(month_of(now))
            and all(each.level >= 0 and now - each.at >= MINUTE_S for each in known.buckets.values())
        ]
        for name in idle:
            del self._counters[name], self._units[name]
        self._forget_at = max(self._max_scopes, 2 * len(self._units))  # or each newcomer would look through all

    def _as_counted(self, reservation: Reservation) -> Reservation:
        """Return a reservation without expenses in a unit that its scope is no longer counted in."""
        if all(_unit_of(scope) == self._units.get(scope.name) for scope in reservation.scopes):
            return reservation
        scopes = tuple(
            scope
            if _unit_of(scope) == self._units.get(scope.name)
            else replace(scope, limits=replace(scope.limits, budget=None))
            for scope in reservation.scopes
        )
        return replace(reservation, scopes=scopes)


def _unit_of(scope: Scope) -> Unit | None:
    return None if scope.limits.budget is None else scope.limits.budget.unit
