"""What counts and writes down what is used, as the gateway's file says: what must run for it."""

import contextlib

from glm_gateway.admission.metering import Metering
from glm_gateway.config.config import GatewayConfig
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.store import nothing_prior
from glm_gateway.usage.service import UsageService


async def metering_of(config: GatewayConfig, stack: contextlib.AsyncExitStack) -> Metering:
    """Return it, with what was used before. What runs for it ends with the stack. Raises OSError."""
    usage = None
    if config.usage is not None:
        usage = await UsageService.opened(config.usage)
        stack.push_async_callback(usage.close)
    store = MemoryStore(nothing_prior if usage is None else usage.spent)
    return Metering(quotas=config.quotas, store=store, usage=usage)
