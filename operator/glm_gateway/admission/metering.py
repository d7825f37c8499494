"""What one request may take is reserved before it goes to a group, and settled when it has ended, exactly once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client.registry import Collector

from glm_edge.errors.failure import Failure
from glm_gateway.access.decide import Caller
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.expect import Means, usage_to_reserve
from glm_gateway.limits.headers import limit_headers, refused
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Refusal, Reservation
from glm_gateway.limits.store import Store, StoreGone
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.metrics import StoreMetrics
from glm_gateway.limits.valkey.shared import SharedStore
from glm_gateway.proxy.relay import Relay
from glm_gateway.surfaces.ask import Ask
from glm_gateway.surfaces.routes import Api
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.metrics import UsageMetrics
from glm_gateway.usage.service import UsageService

MAX_CONTEXT = 131_072
"""Of a model that does not say its own: no GLM has more."""

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Refused:
    """Why a request may not be sent on. headers: beside those of the failure."""

    failure: Failure
    headers: Headers


@dataclass(frozen=True)
class Reserved:
    """What a request holds until it is settled. headers: of its reply, about limits. quotas: that it began with."""

    caller: Caller
    model: str
    api: Api
    reservation: Reservation
    headers: Headers
    quotas: QuotasConfig


@dataclass
class Metering:
    """usage: where what was used is written down; None: nowhere. clock: seconds since 1970."""

    quotas: QuotasConfig = field(default_factory=QuotasConfig)
    store: Store = field(default_factory=MemoryStore)
    usage: UsageService | None = None
    clock: Callable[[], float] = time.time
    means: Means = field(default_factory=Means)
    metrics: UsageMetrics = field(default_factory=UsageMetrics)

    @property
    def collectors(self) -> list[Collector]:
        """What there is to be scraped of this."""
        of_store = [StoreMetrics(self.store)] if isinstance(self.store, SharedStore) else []
        return [self.metrics, *of_store]

    async def reserve(self, caller: Caller, model: str, api: Api, ask: Ask, prompt_tokens: int) -> Reserved | Refused:
        """Take what a request may use. prompt_tokens: as expected; the group's own count is settled."""
        now, quotas = self.clock(), self.quotas
        scopes = quotas.scopes(caller.name, caller.group, model)
        wanted = usage_to_reserve(
            self.means.of(caller.name, model),
            prompt=prompt_tokens,
            max_tokens=ask.max_tokens,
            context=MAX_CONTEXT,
            num_answers=ask.num_answers,
            shares_context=ask.num_prompts == 1,
            prices=quotas.prices_of(model),
        )
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
        return Reserved(caller, model, api, found.reservation, told, quotas)

    async def settle(
        self, reserved: Reserved, request_id: str, relay: Relay, *, e2e_s: float, ttft_s: float | None
    ) -> Entry:
        """Count what a request did use, write it down, and return it. Call it once, however the request ended."""
        now, used = self.clock(), used_by(relay, reserved.reservation.usage)
        caller, model = reserved.caller, reserved.model
        if used == Usage():
            await self.store.release(reserved.reservation, now)
        else:
            await self.store.settle(reserved.reservation, used, now)
        if relay.progress.closed is not None or relay.told is not None:
            self.means.note(caller.name, model, used)
        entry = Entry(
            id=request_id,
            at=now,
            key=caller.name,
            group_of_keys=caller.group or "",
            model=model,
            api=reserved.api,
            outcome=relay.outcome,
            prompt=used.prompt,
            cached=used.cached,
            answer=used.answer,
            thinking=used.thinking,
            cost=reserved.quotas.cost(model, used),
            ttft_s=ttft_s,
            e2e_s=e2e_s,
            num_continued=relay.progress.num_times,
        )
        self.metrics.count(entry)
        if self.usage is not None:
            self.usage.take(entry)
        return entry


_STORE_GONE = Failure(
    503,
    "limits cannot be counted now; try again",
    "service_unavailable",
    code="limits_unavailable",
    retry_after_s=1,
)


def used_by(relay: Relay, reserved: Usage) -> Usage:
    """Return what a request used, exactly where its reply was closed; of one that broke off what is known.

    A reply that is no frames, as of a worker from before or from outside, says it in its API's own words. Where it does
    not, as of a response in the background, all that was reserved counts: nothing may pass a budget unseen.
    """
    progress = relay.progress
    if (closed := progress.closed) is not None:
        return Usage(
            closed.num_prompt_tokens, closed.num_cached_tokens, closed.num_answer_tokens, closed.num_reasoning_tokens
        )
    if progress.opened is None:
        if (told := relay.told) is not None:
            return Usage(told.prompt, told.cached, told.answer - told.reasoning, told.reasoning)
        return reserved if 0 < relay.plain_status < 400 else Usage()
    return Usage(prompt=progress.opened.num_prompt_tokens, answer=progress.num_tokens)
