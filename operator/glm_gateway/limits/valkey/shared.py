"""The store of several replicas as a gateway uses it, also while it is gone: requests go on, or wait for it.

Open: what is asked meanwhile is counted here alone, from what the store was last seen to have, and what it costs is
added to the store when that is back. Closed: StoreGone is raised at once. In both cases what was reserved in the store
is settled there as soon as it answers.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence

from glm_gateway.limits.counters import Counters
from glm_gateway.limits.limit import Unit
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope
from glm_gateway.limits.store import Prior, StoreGone, nothing_prior
from glm_gateway.limits.store_config import OnFailure, StoreConfig
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.client import client_of
from glm_gateway.limits.valkey.store import Leased, Owed, ValkeyStore

log = logging.getLogger(__name__)

RENEW_S = 10.0
"""Between two renewals of leases: two may fail before one lapses."""

PROBE_S = 0.2  # between two looks for a store that is gone
MAX_SEEN = 10_000  # scopes, of which is known here what they have spent

_CLOSE_S = 2.0


class SharedStore:
    """A Store. Made by `opened`, ended by `close`. Use it from one event loop.

    is_up: whether the store answers. num_failures: how often it went. num_counted_here: requests that were let in or
    refused by what this process alone has counted.
    """

    def __init__(
        self,
        shared: ValkeyStore,
        on_failure: OnFailure,
        *,
        where: str,
        prior: Prior = nothing_prior,
        renew_s: float = RENEW_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self.is_up = True
        self.num_failures = 0
        self.num_counted_here = 0
        self._shared = shared
        self._on_failure = on_failure
        self._where = where
        self._prior = prior
        self._renew_s, self._probe_s = renew_s, probe_s
        self._trouble = ""
        self._gone_since = 0.0
        self._here = MemoryStore(self._prior_here)
        self._seen: dict[tuple[str, Unit], tuple[str, int]] = {}  # month and sum, as the store had it last
        self._owed: dict[tuple[str, str, str], tuple[int, int]] = {}  # by scope, month, lease: tokens and money
        self._owing: tuple[str, list[Owed]] | None = None  # sent, and not answered
        self._wake = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def opened(cls, config: StoreConfig, *, prior: Prior = nothing_prior, journal: str = "") -> "SharedStore":
        """Return the store, whether it answers yet or not. prior, journal: as ValkeyStore has them."""
        shared = ValkeyStore(
            client_of(config),
            prefix=config.prefix,
            timeout_s=config.timeout_seconds,
            prior=prior,
            journal=journal,
        )
        store = cls(shared, config.on_failure, where=config.url, prior=prior)
        await store.start()
        return store

    async def start(self) -> None:
        """Look whether the store answers, and go on renewing leases."""
        await self._look()
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Send what the store must still hear of, where it answers, and end."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._shared.close()

    async def reserve(self, scopes: Sequence[Scope], usage: Usage, now: float) -> Granted | Refusal:
        if self.is_up:
            try:
                found = await self._shared.reserve(scopes, usage, now)
            except StoreGone as error:
                self._note_gone(error)
            else:
                if isinstance(found, Granted):
                    self._note_seen(scopes, found.counters)
                return found
        if self._on_failure is OnFailure.CLOSED:
            raise StoreGone(self._trouble)
        self.num_counted_here += 1
        return await self._here.reserve(scopes, usage, now)

    async def settle(self, reservation: Reservation, used: Usage, now: float) -> Mapping[str, Counters]:
        if isinstance(reservation, Leased):
            if not self.is_up:
                self._shared.put_off(reservation, used)
                return {}
            try:
                return await self._shared.settle(reservation, used, now)
            except StoreGone as error:
                self._note_gone(error)  # it is settled when the store is back
                return {}
        for scope in reservation.scopes:
            self._owe(scope.name, reservation.month, used.total, scope.limits.prices.cost(used))
        if self.is_up:
            self._wake.set()
        return await self._here.settle(reservation, used, now)

    async def release(self, reservation: Reservation, now: float) -> Mapping[str, Counters]:
        if not isinstance(reservation, Leased):
            return await self._here.release(reservation, now)
        if not self.is_up:
            self._shared.put_off(reservation, None)
            return {}
        try:
            return await self._shared.release(reservation, now)
        except StoreGone as error:
            self._note_gone(error)
            return {}

    async def counters(self, scopes: Sequence[Scope]) -> Mapping[str, Counters]:
        if self.is_up:
            try:
                return await self._shared.counters(scopes)
            except StoreGone as error:
                self._note_gone(error)
        if self._on_failure is OnFailure.CLOSED:
            raise StoreGone(self._trouble)
        return await self._here.counters(scopes)

    def hear(self, scope: str, month: str, tokens: int, money: int, lease: str = "") -> None:
        """Add to the store what a process that died had spent and could not settle. lease: of what it had reserved for
        that, by which the store knows whether it had.
        """
        self._owe(scope, month, tokens, money, lease)
        self._wake.set()

    def _owe(self, scope: str, month: str, tokens: int, money: int, lease: str = "") -> None:
        owed = self._owed.get((scope, month, lease), (0, 0))
        self._owed[scope, month, lease] = owed[0] + tokens, owed[1] + money

    async def _keep(self) -> None:
        while not self._is_closing:
            try:
                async with asyncio.timeout(self._renew_s if self.is_up else self._probe_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._look()
        deadline = time.monotonic() + _CLOSE_S
        while (self._shared.num_unfinished or self._owed or self._owing) and time.monotonic() < deadline:
            await self._look()
            await asyncio.sleep(self._probe_s)
        if self._shared.num_unfinished or self._owed or self._owing:
            log.error("store %s is gone at the end: what this gateway has still to tell it is lost", self._where)

    async def _look(self) -> None:
        """Renew leases and hand over what is owed: that the store takes these is what being there means."""
        try:
            await self._hand_over()
            await self._shared.renew()
        except StoreGone as error:
            self._note_gone(error)
            return
        if not self.is_up:
            self.is_up = True
            log.info("store %s answers again after %.1f s", self._where, time.monotonic() - self._gone_since)

    async def _hand_over(self) -> None:
        while self._owing is not None or self._owed:
            if self._owing is None:
                owed = [Owed(scope, month, *sums, lease) for (scope, month, lease), sums in self._owed.items()]
                self._owing, self._owed = (secrets.token_hex(8), owed), {}
            await self._shared.owe(*self._owing)
            self._owing = None

    def _note_gone(self, error: StoreGone) -> None:
        if self.is_up:
            self.is_up = False
            self.num_failures += 1
            self._trouble, self._gone_since = str(error), time.monotonic()
            self._here = MemoryStore(self._prior_here)
            what = "limits are counted in this replica alone"
            if self._on_failure is OnFailure.CLOSED:
                what = "requests get 503"
            log.error("store %s is gone: %s; until it answers, %s", self._where, error, what)
            self._wake.set()  # look at once: one call may have been slow

    def _note_seen(self, scopes: Sequence[Scope], counters: Mapping[str, Counters]) -> None:
        for scope in scopes:
            if scope.limits.budget is not None:
                known = counters[scope.name]
                self._seen[scope.name, scope.limits.budget.unit] = known.month, known.spent
        while len(self._seen) > MAX_SEEN:
            self._seen.pop(next(iter(self._seen)))

    def _prior_here(self, scope: str, unit: Unit, month: str) -> int:
        seen_month, seen = self._seen.get((scope, unit), ("", 0))
        return max(self._prior(scope, unit, month), seen if seen_month == month else 0)
