"""A Store in Valkey or Redis: a call is one round trip, and one script that nothing comes in between.

Each reservation has an id, and a lease at the server that this process renews while the request runs. What was sent and
not answered may have been done or not: it is sent again as soon as the server answers, and takes hold once.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from glm_gateway.limits.counters import Counters, month_of
from glm_gateway.limits.limit import Unit
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope, reserve
from glm_gateway.limits.store import Prior, StoreGone, nothing_prior
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.script import SCRIPT
from glm_gateway.limits.valkey.wire import Json, Reply, digits, reply_in, reserved_of, settled_of, shifted

LEASE_S = 30.0
"""How long a request counts as running after its gateway was last heard of."""

MAX_UNFINISHED = 100_000
"""Calls without an answer that are kept to be sent again; the oldest ones are dropped."""

_RENEWED_AT_ONCE = 500


@dataclass(frozen=True)
class Leased(Reservation):
    """A reservation that the server knows by its id."""

    id: str


@dataclass(frozen=True)
class Owed:
    """Spent of a month while the server was gone, in tokens and in PICO.

    lease: the id of the reservation that it ends, of a gateway that is dead; one that was settled counts no more.
    Empty: the server knows of none.
    """

    scope: str
    month: str
    tokens: int
    money: int
    lease: str = ""


class ValkeyStore:
    """Use it from one event loop. Every call but `close` raises StoreGone.

    prior: what the journal of this gateway has of a month; journal: its id. It is added to the sums of the server once,
    when a scope of a month is first asked for, and again where the server has lost what it had. journal: empty, there
    is none. timeout_s: of a call. clock: seconds since 1970 in place of the server's own, in tests alone.
    """

    def __init__(
        self,
        client: Redis,
        *,
        prefix: str,
        timeout_s: float,
        prior: Prior = nothing_prior,
        journal: str = "",
        lease_s: float = LEASE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT)
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._prior = prior
        self._journal = journal
        self._lease_s = lease_s
        self._clock = clock
        self._gateway = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._running: dict[str, tuple[str, ...]] = {}  # names of scopes, by the id of a reservation
        self._unfinished: dict[str, Json] = {}  # what is sent again, by the id of a reservation
        self._ahead_s = 0.0  # the caller's clock before the server's
        self.num_dropped = 0

    async def reserve(self, scopes: Sequence[Scope], usage: Usage, now: float) -> Granted | Refusal:
        id_ = f"{self._gateway}-{next(self._numbers)}"
        asked = [reserved_of(scope, usage) for scope in scopes]
        known: Json = {"scopes": asked, "id": id_, "lease_s": self._lease_s}
        self._running[id_] = tuple(scope.name for scope in scopes)
        try:
            reply = await self._call("reserve", known)
            while reply.verdict == "unknown":  # a second time at the turn of a month
                asked = [each | {"prior": self._prior_of(each["name"], reply.month)} for each in asked]
                reply = await self._call("reserve", known | {"scopes": asked})
        except (StoreGone, asyncio.CancelledError):
            month = month_of(now - self._ahead_s)  # as the server has it, as far as is known
            self._keep_unfinished(id_, self._settling(id_, scopes, month, usage, Usage(), is_released=True))
            raise
        self._ahead_s = now - reply.now
        found = reserve(scopes, reply.counters(scopes), usage, reply.now)
        if isinstance(found, Refusal):
            assert reply.verdict == "refused", (reply, scopes, usage)
            del self._running[id_]
            return found
        assert reply.verdict == "granted", (reply, scopes, usage)
        leased = Leased(found.reservation.scopes, usage, reply.month, id_)
        counters = {name: shifted(each, self._ahead_s) for name, each in found.counters.items()}
        return Granted(leased, counters, found.overlooked)

    async def settle(self, reservation: Reservation, used: Usage, now: float) -> Mapping[str, Counters]:
        return await self._settle(reservation, used, now)

    async def release(self, reservation: Reservation, now: float) -> Mapping[str, Counters]:
        return await self._settle(reservation, None, now)

    def put_off(self, reservation: Reservation, used: Usage | None) -> None:
        """Settle a reservation with the next `renew`, or release it (used: None)."""
        assert isinstance(reservation, Leased)
        self._keep_unfinished(reservation.id, self._settling_of(reservation, used))

    async def counters(self, scopes: Sequence[Scope]) -> Mapping[str, Counters]:
        reply = await self._call("tell", {"scopes": [{"name": scope.name} for scope in scopes]})
        return reply.counters(scopes, self._ahead_s)

    async def renew(self) -> None:
        """Renew the leases of all requests that run, and send again what was not answered."""
        by_scope: dict[str, list[str]] = {}
        for id_, names in self._running.items():
            for name in names:
                by_scope.setdefault(name, []).append(id_)
        parts: list[Json | None] = [
            {"name": name, "ids": ids[first : first + _RENEWED_AT_ONCE]}
            for name, ids in by_scope.items()
            for first in range(0, len(ids), _RENEWED_AT_ONCE)
        ]
        for part in parts or [None]:
            scopes = [part] if part else []
            await self._call("renew", {"scopes": scopes, "gateway": self._gateway, "lease_s": self._lease_s})
        for id_, settling in list(self._unfinished.items()):
            await self._call("settle", settling)
            self._forget(id_)

    async def owe(self, batch: str, owed: Sequence[Owed]) -> None:
        """Add what was spent while the server was gone. batch: its id; the same one counts once."""
        scopes = []
        for each in owed:
            prior = self._prior(each.scope, Unit.TOKENS, each.month), self._prior(each.scope, Unit.MONEY, each.month)
            # A journal that is new to the server has all of it already, and where there is none what is owed is all.
            least = {"tokens": digits(max(prior[0], each.tokens)), "money": digits(max(prior[1], each.money))}
            expense = {"tokens": digits(each.tokens), "money": digits(each.money)}
            told = {"name": each.scope, "month": each.month, "lease": each.lease, "expense": expense, "prior": least}
            scopes.append(told)
        await self._call("owe", {"scopes": scopes, "id": batch})

    @property
    def num_unfinished(self) -> int:
        """How many calls were not answered, and will be sent again."""
        return len(self._unfinished)

    async def close(self) -> None:
        await self._client.aclose()

    async def _settle(self, reservation: Reservation, used: Usage | None, now: float) -> Mapping[str, Counters]:
        assert isinstance(reservation, Leased)
        settling = self._settling_of(reservation, used)
        try:
            reply = await self._call("settle", settling)
        except (StoreGone, asyncio.CancelledError):
            self._keep_unfinished(reservation.id, settling)
            raise
        self._forget(reservation.id)
        self._ahead_s = now - reply.now
        return reply.counters(reservation.scopes, self._ahead_s)

    def _settling_of(self, leased: Leased, used: Usage | None) -> Json:
        return self._settling(
            leased.id, leased.scopes, leased.month, leased.usage, used or Usage(), is_released=used is None
        )

    def _settling(
        self, id_: str, scopes: Sequence[Scope], month: str, reserved: Usage, used: Usage, *, is_released: bool
    ) -> Json:
        told = [settled_of(scope, reserved, used, is_released=is_released) for scope in scopes]
        return {"scopes": told, "id": id_, "month": month}

    def _prior_of(self, scope: str, month: str) -> Json:
        tokens, money = self._prior(scope, Unit.TOKENS, month), self._prior(scope, Unit.MONEY, month)
        return {"tokens": digits(tokens), "money": digits(money)}

    def _keep_unfinished(self, id_: str, settling: Json) -> None:
        self._unfinished[id_] = settling
        while len(self._unfinished) > MAX_UNFINISHED:
            oldest = next(iter(self._unfinished))
            self._forget(oldest)
            self.num_dropped += 1

    def _forget(self, id_: str) -> None:
        self._unfinished.pop(id_, None)
        self._running.pop(id_, None)

    async def _call(self, what: str, told: Json) -> Reply:
        told |= {"prefix": self._prefix, "journal": self._journal}
        if self._clock is not None:
            told["now"] = self._clock()
        return reply_in(await _answer(self._script(args=[what, msgspec.json.encode(told)]), self._timeout_s))


async def _answer(call: Awaitable[Any], timeout_s: float) -> list[Any]:
    """Return the answer of a call. Raises StoreGone where it has none in time, or a bad one."""
    asked = asyncio.ensure_future(call)
    try:
        # No asyncio.timeout: where the loop was busy, the answer is there in the same pass, and would be thrown away.
        await asyncio.wait({asked}, timeout=timeout_s)
        if not asked.done():
            raise StoreGone(f"it did not answer within {timeout_s:g} s")
        answer: list[Any] = asked.result()
        return answer
    except (RedisError, OSError) as error:
        raise StoreGone(f"{type(error).__name__}: {error}"[:300]) from error
    finally:
        if not asked.done():
            asked.cancel()  # which gives its connection up
            await asyncio.wait({asked})
