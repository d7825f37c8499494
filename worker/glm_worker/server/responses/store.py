"""Responses that are kept to be read, cancelled or gone on from: bounded in number, bytes and time, apart by tenant.

They live in the memory of this process and go with it. A pure state machine: no clock of its own, no tasks. Only
`find` may be called from other threads than the event loop's.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from glm_worker.server.responses.event_log import EventLog
from glm_worker.server.responses.ids import ResponseId

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class StoreLimits:
    """num_responses, num_bytes: of all tenants together, as JSON. ttl_s: from when a response is complete."""

    num_responses: int = 1000
    num_bytes: int = 64 * 2**20  # four of the largest bodies that are read, or a thousand of a usual agent's turns
    ttl_s: float = 3600.0  # a conversation with a person in it goes on within the hour, or not at all


class Making(Protocol):
    """What makes a response in the background. was_read: set when somebody was told how it ended."""

    was_read: asyncio.Event

    def snapshot(self) -> Json: ...
    async def cancel(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One response. input_items: all that the model read, as JSON. response: as JSON; None while it is being made.

    log: of its events, where it was made in the background and streamed. on_read: to be called when somebody was told
    how it ended.
    """

    id: ResponseId
    tenant: str
    input_items: bytes
    response: bytes | None = None
    making: Making | None = None
    log: EventLog | None = None
    on_read: Callable[[], None] = lambda: None
    ends_at: float | None = None  # on the store's clock; None while it is being made
    num_bytes: int = 0  # as it is counted against the bound; 0 while it is being made

    def items(self) -> list[Json]:
        """Return what the model read, oldest first."""
        items: list[Json] = _decode(self.input_items)
        return items

    def body(self) -> Json:
        """Return the response as it stands now."""
        body: Json = _decode(self.json())
        return body

    def json(self) -> bytes:
        """Return the JSON of the response as it stands now."""
        if self.response is not None:
            return self.response
        assert self.making is not None
        return _encode(self.making.snapshot())


class Store:
    """All responses that are kept."""

    def __init__(self, limits: StoreLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or StoreLimits()
        self._clock = clock
        self._kept: dict[str, Kept] = {}  # by the digits of their ids, oldest first
        self._num_bytes = 0  # of those that are complete: what is being made is bounded by the engine's queue

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def begin(
        self,
        id: ResponseId,  # noqa: A002
        tenant: str,
        items: Iterable[Json],
        making: Making,
        log: EventLog | None,
    ) -> None:
        """Keep a response that is being made. It stays, whatever the bounds are, until it is complete."""
        self.sweep()
        self._kept[id.digits] = Kept(
            id=id, tenant=tenant, input_items=_encode(list(items)), making=making, log=log, on_read=making.was_read.set
        )
        self._make_room()

    def keep(self, id: ResponseId, tenant: str, items: Iterable[Json], response: Json) -> None:  # noqa: A002
        """Keep a complete response. The oldest of the tenant that has the most go when there is no room."""
        self.sweep()
        self._add(Kept(id=id, tenant=tenant, input_items=_encode(list(items)), response=_encode(response)))

    def complete(self, id: ResponseId, response: Json) -> None:  # noqa: A002
        """Note how a response that was being made has ended. Without effect when it was deleted meanwhile."""
        self.sweep()
        if (kept := self._kept.get(id.digits)) is not None:
            self._remove(id.digits)
            self._add(replace(kept, response=_encode(response), making=None))

    def find(self, tenant: str, digits: str) -> Kept | None:
        """Return the tenant's response with these digits in its id, if it is kept."""
        kept = self._kept.get(digits)
        if kept is None or kept.tenant != tenant or self._is_over(kept):
            return None
        return kept

    def items_of(self, tenant: str, digits: str) -> dict[str, Json]:
        """Return the items of a response of the tenant, of its input and its output, by their ids; else none."""
        kept = self.find(tenant, digits)
        return {} if kept is None else {item["id"]: item for item in (*kept.items(), *kept.body()["output"])}

    def drop(self, tenant: str, digits: str) -> Kept | None:
        """Forget the tenant's response, and return what it was."""
        kept = self.find(tenant, digits)
        if kept is not None:
            self._remove(digits)
        return kept

    def sweep(self) -> None:
        """Forget what is over its time."""
        for digits in [digits for digits, kept in self._kept.items() if self._is_over(kept)]:
            self._remove(digits)

    def _add(self, kept: Kept) -> None:
        """Keep what is complete. Its last event is yet to come, and tells the response once more."""
        response = kept.response or b""
        told = 0 if kept.log is None else kept.log.num_bytes + len(response)
        num_bytes = len(kept.input_items) + len(response) + told
        self._kept[kept.id.digits] = replace(kept, ends_at=self._clock() + self.limits.ttl_s, num_bytes=num_bytes)
        self._num_bytes += num_bytes
        self._make_room()

    def _make_room(self) -> None:
        while len(self._kept) > self.limits.num_responses or self._num_bytes > self.limits.num_bytes:
            sizes: Counter[str] = Counter()
            for kept in self._kept.values():
                if kept.response is not None:
                    sizes[kept.tenant] += kept.num_bytes
            if not sizes:  # all are being made
                return
            ((largest, _),) = sizes.most_common(1)
            self._remove(
                next(
                    digits
                    for digits, kept in self._kept.items()
                    if kept.tenant == largest and kept.response is not None
                )
            )

    def _remove(self, digits: str) -> None:
        self._num_bytes -= self._kept.pop(digits).num_bytes

    def _is_over(self, kept: Kept) -> bool:
        return kept.ends_at is not None and self._clock() >= kept.ends_at
