"""How one request is relayed, whatever it asks for: what goes out, until its reply is told, or its client has left."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glm_gateway.admission.record import Record
from glm_gateway.exchange.destination import Destination, Placed
from glm_gateway.exchange.state import State
from glm_gateway.proxy.client import BrokenReply
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.outgoing import Outgoing
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.proxy.request_ids import HEADER as REQUEST_ID_HEADER
from glm_gateway.surfaces import responses
from glm_gateway.surfaces.words import Words

log = logging.getLogger(__name__)

Message = dict[str, Any]
Headers = Sequence[tuple[bytes, bytes]]

TOLD_OF_CUT_S = 1.0
"""For the last word to a client that is cut; it must have ended, and be counted, before the gateway does."""


@dataclass(kw_only=True, slots=True)
class Relaying:
    """One request that is whole. receive: tells when its client leaves. headers: of the client."""

    gateway: State
    scope: Message
    receive: Callable[[], Awaitable[Message]]
    send: Callable[[Message], Awaitable[None]]
    words: Words
    record: Record
    destination: Destination
    headers: Headers
    request_id: str
    body: bytes

    def relay(self, placing: Placed, *, streams: bool, added: Headers = (), to_group: Headers = ()) -> Relay:
        """added: headers of ours to the client. to_group: what a group is told beside who asks."""
        gateway, own_id = self.gateway, (REQUEST_ID_HEADER, self.request_id.encode())
        query, path = self.scope["query_string"].decode("latin-1"), self.scope["path"]
        outgoing = Outgoing(
            method=self.scope["method"],
            target=f"{path}?{query}" if query else path,
            headers=self.headers,
            body=self.body,
            added=[own_id, *self.destination.told(placing), *to_group],
            streams=streams,
        )
        is_response = path == responses.PATH or path.startswith(responses.PATH + "/")
        relay = Relay(
            outgoing,
            self.record.placing(placing),
            responses.ResponseWords(self.words) if is_response else self.words,
            self.send,
            bounds=gateway.bounds,
            waits=gateway.waits,
            reply_added=[*self.words.id_headers, *added],
        )
        self.record.relays(relay)
        return relay

    async def run(self, relay: Relay, placing: Placed) -> None:
        """Relay until the reply is told, or the client is gone, or there is no more time."""
        running = asyncio.create_task(relay.run())
        leaving = asyncio.create_task(self._left())
        self.gateway.relaying.add(running)
        if self.gateway.is_cut:  # its body came, or its limits were looked at, for longer than there was time
            running.cancel()
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if running.cancelled() and self.gateway.is_cut:
                with contextlib.suppress(TimeoutError):  # who does not read has nothing to be waited for
                    async with asyncio.timeout(TOLD_OF_CUT_S):
                        await relay.cut()
            elif running.done():
                running.result()
        except BrokenReply as error:
            log.warning("request=%s its reply broke off: %s", self.request_id, error)
            raise
        finally:
            leaving.cancel()
            self.gateway.relaying.discard(running)
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
            placing.close()
            result = relay.result
            self.gateway.telemetry.ended(placing.name, self.words.api, result, waited_s=placing.waited_s)
            if result.outcome is Outcome.FAILED and result.failure is not None:
                if placing.was_drained or (result.is_plain and placing.is_leaving(result.group)):
                    self.gateway.num_cut += 1
                    self.gateway.telemetry.cut_by_drain(placing.name)
                log.warning("request=%s group=%s failed: %s", self.request_id, result.group, result.failure.message)

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
