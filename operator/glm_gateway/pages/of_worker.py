"""What a worker tells of its API, asked of a group that is here."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from glm_gateway.models.model import Model
from glm_gateway.proxy.connection import UpstreamLost
from glm_gateway.proxy.heads import request_head
from glm_gateway.proxy.pool import Pool

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 2**20
ASK_S = 5.0  # a worker makes it for the first time in half a second
MAX_ASKED = 3  # groups, one after the other


async def described_by_a_worker(models: Iterable[Model]) -> Mapping[str, Any] | None:
    """Return the OpenAPI document of a worker; None: no group answers with one."""
    pools = [
        model.directory.pool(group.name) for model in models for group in model.directory.groups if group.takes_requests
    ]
    for pool in pools[:MAX_ASKED]:
        try:
            async with asyncio.timeout(ASK_S):
                found = msgspec.json.decode(await _asked(pool))
        except (TimeoutError, UpstreamLost, msgspec.DecodeError) as error:
            log.info("a group did not describe its API: %s", error or type(error).__name__)
            continue
        if isinstance(found, dict) and isinstance(found.get("paths"), dict):
            return found
    return None


async def _asked(pool: Pool) -> bytes:
    """Return the body of the reply. Raises UpstreamLost, also for a reply that is an error or too long."""
    connection = await pool.ask(request_head("GET", "/openapi.json", (), 0), ())
    try:
        head = await connection.head()
        parts: list[bytes] = []
        num_bytes = 0
        while data := await connection.read():
            parts.append(data)
            num_bytes += len(data)
            if head.status != 200 or num_bytes > MAX_BYTES:
                raise UpstreamLost(f"it answered {head.status}, {num_bytes} bytes", has_answered=True)
        if head.status != 200:
            raise UpstreamLost(f"it answered {head.status}", has_answered=True)
    finally:
        pool.done(connection)
    return b"".join(parts)
