"""What counts and writes down what is used, as the gateway's file says: what must run for it."""

import asyncio
import contextlib

from glm_gateway.admission.metering import Metering
from glm_gateway.config.config import GatewayConfig
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.store import nothing_prior
from glm_gateway.limits.valkey.shared import SharedStore
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.exports import Exports
from glm_gateway.usage.service import UsageService
from glm_gateway.usage.spent import scopes_of, tokens_of


async def metering_of(config: GatewayConfig, stack: contextlib.AsyncExitStack) -> Metering:
    """Return it, with what was used before. What runs for it ends with the stack. Raises OSError."""
    usage = None
    if config.usage is not None:
        usage = await UsageService.opened(config.usage)
        stack.push_async_callback(usage.close)
        if config.usage.export is not None:
            exporting = asyncio.create_task(Exports(config.usage.export, usage.journal).run())
            stack.push_async_callback(_end, exporting)
    prior = nothing_prior if usage is None else usage.spent
    if config.store is None:
        here = MemoryStore(prior)
        metering = Metering(quotas=config.quotas, store=here, usage=usage)
        if usage is not None:
            usage.heard = usage.taken_over = lambda entry: _tell(here, entry)
            usage.under_way = metering.under_way
        return metering
    store = await SharedStore.opened(config.store, prior=prior, journal="" if usage is None else usage.journal.id)
    stack.push_async_callback(store.close)
    metering = Metering(quotas=config.quotas, store=store, usage=usage)
    if usage is not None:
        usage.taken_over = lambda entry: _tell_shared(store, entry)  # who lives has told the store itself
        for entry in usage.found:
            _tell_shared(store, entry)
        usage.under_way = metering.under_way
    return metering


def _tell(here: MemoryStore, entry: Entry) -> None:
    """Have a store count what another process has spent."""
    for scope in scopes_of(entry):
        here.hear(scope, entry.day[:7], tokens_of(entry), entry.cost)


def _tell_shared(store: SharedStore, entry: Entry) -> None:
    """Have a store count what a process has spent that died, unless that one had told it."""
    for scope in scopes_of(entry):
        store.hear(scope, entry.day[:7], tokens_of(entry), entry.cost, entry.lease)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
