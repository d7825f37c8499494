"""What one request may take is reserved before it goes to a group, and settled when it has ended, exactly once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from prometheus_client.registry import Collector

from glm_edge.errors.failure import Failure
from glm_gateway.access.decide import Caller
from glm_gateway.admission.reserved import Refused, Reserved
from glm_gateway.admission.used import usage_of, used_by
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.expect import Means, room_of_context, usage_to_reserve
from glm_gateway.limits.headers import limit_headers, refused
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Refusal, Scope, of_whole, scopes_of_more_prompt, scopes_of_requests
from glm_gateway.limits.store import Store, StoreGone
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.metrics import StoreMetrics
from glm_gateway.limits.valkey.shared import SharedStore
from glm_gateway.limits.valkey.store import Leased
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.result import Result
from glm_gateway.surfaces.ask import Ask
from glm_gateway.surfaces.routes import Api
from glm_gateway.surfaces.usage import Stored
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.metrics import UsageMetrics
from glm_gateway.usage.service import UsageService

MAX_CONTEXT = 131_072
"""Of a model that does not say its own: no GLM has more."""


@dataclass(frozen=True)
class _Open:
    """A request that has not ended. began_at: seconds since 1970."""

    reserved: Reserved
    result: Result
    began_at: float


@dataclass
class Metering:
    """usage: where what was used is written down; None: nowhere. clock: seconds since 1970."""

    quotas: QuotasConfig = field(default_factory=QuotasConfig)
    store: Store = field(default_factory=MemoryStore)
    usage: UsageService | None = None
    clock: Callable[[], float] = time.time
    means: Means = field(default_factory=Means)
    metrics: UsageMetrics = field(default_factory=UsageMetrics)
    _open: dict[str, _Open] = field(default_factory=dict)

    @property
    def collectors(self) -> list[Collector]:
        """What there is to be scraped of this."""
        of_store = [StoreMetrics(self.store)] if isinstance(self.store, SharedStore) else []
        return [self.metrics, *of_store]

    async def reserve(self, caller: Caller, model: str, api: Api, ask: Ask, prompt_tokens: int) -> Reserved | Refused:
        """Take what a request may use. prompt_tokens: as expected; the group's own count is settled."""
        quotas = self.quotas
        most = MAX_CONTEXT if ask.in_background and ask.max_tokens is None else ask.max_tokens  # nobody may see its end
        scopes = quotas.scopes(caller.name, caller.group, model)
        bound, shares_context = _context_tokens(scopes), ask.num_prompts == 1
        context = MAX_CONTEXT
        if bound is not None and ask.max_tokens is None:  # workers end the answers there
            context = min(context, room_of_context(bound, prompt_tokens, ask.num_answers, shares_context))
        wanted = usage_to_reserve(
            self.means.of(caller.name, model),
            prompt=prompt_tokens,
            max_tokens=most,
            context=context,
            num_answers=ask.num_answers,
            shares_context=shares_context,
            prices=quotas.prices_of(model),
        )
        found = await self._reserve(caller, model, api, scopes, wanted)
        if isinstance(found, Refused):
            return found
        found.context_tokens, found.in_background = bound, ask.in_background
        return found

    async def reserve_count(self, caller: Caller, model: str, api: Api) -> Reserved | Refused:
        """Take what a request may use that has tokens counted, and none computed: itself. Call `end_count`."""
        scopes = scopes_of_requests(self.quotas.scopes(caller.name, caller.group, model))
        return await self._reserve(caller, model, api, scopes, Usage())

    async def end_count(self, reserved: Reserved) -> None:
        """End it, as a request that a group took."""
        await self.store.settle(reserved.reservation, Usage(), self.clock())

    async def drop(self, reserved: Reserved) -> None:
        """Give back what was reserved for a request that went nowhere."""
        await self.store.release(reserved.reservation, self.clock())

    async def _reserve(
        self, caller: Caller, model: str, api: Api, scopes: Sequence[Scope], wanted: Usage
    ) -> Reserved | Refused:
        now, quotas = self.clock(), self.quotas
        try:
            found = await self.store.reserve(scopes, wanted, now)
            counters = await self.store.counters(scopes) if isinstance(found, Refusal) else found.counters
        except StoreGone:  # the store has said why, and to whom that is of use
            return Refused(_STORE_GONE, [])
        if isinstance(found, Refusal):
            self.metrics.refuse(caller.name, found.limit, only_counts=False)
            failure, headers = refused(found, scopes)
            return Refused(failure, [*headers, *limit_headers(api, scopes, counters, now)])
        for overlooked in found.overlooked:
            self.metrics.refuse(caller.name, overlooked.limit, only_counts=True)
        told = limit_headers(api, scopes, counters, now)
        passed = frozenset((each.scope, each.limit) for each in found.overlooked)
        return Reserved(caller, model, api, found.reservation, told, quotas, overlooked=passed)

    async def reserve_more(self, reserved: Reserved, prompt_tokens: int) -> Refused | None:
        """Take what a prompt has beyond what was reserved for it. prompt_tokens: as its group counts them.

        Where it may not be taken nothing is held any more, and the request has to end. Call it once.
        """
        more = Usage(prompt=prompt_tokens - reserved.reservation.usage.prompt)
        if more.prompt <= 0:
            return None
        now, caller = self.clock(), reserved.caller
        scopes = self.quotas.scopes(caller.name, caller.group, reserved.model)
        asked = scopes_of_more_prompt(scopes)
        if not asked:
            return None
        try:
            found = await self.store.reserve(asked, more, now)
            if isinstance(found, Refusal):
                reserved.is_released = True
                await self.store.release(reserved.reservation, now)
                counters = await self.store.counters(scopes)
        except StoreGone:
            if not reserved.is_released:
                return None  # who runs already goes on, and owes it
            counters = {}
        if isinstance(found, Refusal):
            self.metrics.refuse(caller.name, found.limit, only_counts=False)
            failure, headers = refused(of_whole(found, scopes, reserved.reservation.usage, more), scopes)
            return Refused(failure, [*headers, *limit_headers(reserved.api, scopes, counters, now)])
        reserved.more = found.reservation
        for overlooked in found.overlooked:
            if (overlooked.scope, overlooked.limit) not in reserved.overlooked:
                self.metrics.refuse(caller.name, overlooked.limit, only_counts=True)
        return None

    def begin(self, reserved: Reserved, request_id: str, result: Result) -> None:
        """Note that a request is on its way: until it is settled what it has used so far is known as well."""
        self._open[request_id] = _Open(reserved, result, self.clock())

    def under_way(self) -> list[Entry]:
        """Return what requests that are not settled have used so far, of those that have used anything."""
        now, found = self.clock(), []
        for id_, each in list(self._open.items()):
            reserved, result = each.reserved, each.result
            asked = reserved.reservation.usage
            used = used_by(result, asked, in_background=reserved.in_background, is_over=False)
            if used.total and not reserved.is_released:
                times = now - each.began_at, None
                entry = _entry_of(reserved, id_, used, now, Outcome.FAILED, times, result.progress.num_times)
                lease = reserved.reservation.id if isinstance(reserved.reservation, Leased) else ""
                found.append(msgspec.structs.replace(entry, is_partial=True, lease=lease))
        return found

    async def settle(
        self, reserved: Reserved, request_id: str, result: Result, *, e2e_s: float, ttft_s: float | None
    ) -> Entry:
        """Count what a request did use, write it down, and return it. Call it once, however the request ended."""
        return await self._count(
            reserved,
            request_id,
            used_by(result, reserved.reservation.usage, in_background=reserved.in_background),
            outcome=result.outcome,
            is_whole=result.progress.closed is not None or result.told is not None,
            e2e_s=e2e_s,
            ttft_s=ttft_s,
            num_continued=result.progress.num_times,
        )

    async def settle_response(self, reserved: Reserved, request_id: str, ended: Stored | None, *, e2e_s: float) -> None:
        """Count what a response in the background did use. ended: as its group tells it; None: nobody knows."""
        told = None if ended is None else ended.told
        await self._count(
            reserved,
            request_id,
            reserved.reservation.usage if told is None else usage_of(told),
            outcome=_OUTCOMES.get("" if ended is None else ended.status, Outcome.FINISHED),
            is_whole=told is not None,
            e2e_s=e2e_s,
        )

    async def _count(
        self,
        reserved: Reserved,
        request_id: str,
        used: Usage,
        *,
        outcome: Outcome,
        is_whole: bool,
        e2e_s: float,
        ttft_s: float | None = None,
        num_continued: int = 0,
    ) -> Entry:
        """is_whole: what it used says how much the key's next answers may have."""
        now, caller, model = self.clock(), reserved.caller, reserved.model
        if reserved.is_released:
            used = Usage()
        elif used == Usage():
            await self.store.release(reserved.reservation, now)
        else:
            await self.store.settle(reserved.reservation, used, now)
        if reserved.more is not None:
            await self.store.release(reserved.more, now)
        if is_whole:
            self.means.note(caller.name, model, used)
        entry = _entry_of(reserved, request_id, used, now, outcome, (e2e_s, ttft_s), num_continued)
        self.metrics.count(entry)
        if self.usage is not None:
            self.usage.take(entry)
        self._open.pop(request_id, None)  # not before: whatever dies, one of both is known
        return entry


def _entry_of(
    reserved: Reserved,
    request_id: str,
    used: Usage,
    at: float,
    outcome: Outcome,
    times: tuple[float, float | None],
    num_continued: int,
) -> Entry:
    """times: from arrival to the end, and to the first token, in seconds."""
    caller = reserved.caller
    return Entry(
        id=request_id,
        at=at,
        key=caller.name,
        group_of_keys=caller.group or "",
        model=reserved.model,
        api=reserved.api,
        outcome=outcome,
        prompt=used.prompt,
        cached=used.cached,
        answer=used.answer,
        thinking=used.thinking,
        cost=reserved.quotas.cost(reserved.model, used),
        ttft_s=times[1],
        e2e_s=times[0],
        num_continued=num_continued,
    )


def _context_tokens(scopes: Sequence[Scope]) -> int | None:
    """Return how many tokens one request may have, by the limits that hold it up."""
    said = [scope.limits.context_tokens for scope in scopes if not scope.limits.only_counts]
    return min((each for each in said if each is not None), default=None)


_STORE_GONE = Failure(
    503,
    "limits cannot be counted now; try again",
    "service_unavailable",
    code="limits_unavailable",
    retry_after_s=1,
)


_OUTCOMES = {"failed": Outcome.FAILED, "cancelled": Outcome.CANCELLED}
"""Of a response, by its status."""
