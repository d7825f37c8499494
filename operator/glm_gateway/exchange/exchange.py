"""From a head to the relay of its reply: whose path it is, who asks; the body; which model; where it goes.

What is refused here is told in the words of the API that the path is of.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glm_edge.errors.failure import Failure
from glm_edge.frames import Open
from glm_gateway.access.cors import Cors, asks_before
from glm_gateway.access.decide import Caller, Mode
from glm_gateway.admission.record import Record
from glm_gateway.admission.reserved import Refused as OverLimit
from glm_gateway.admission.reserved import Reserved
from glm_gateway.exchange.bodies import Body
from glm_gateway.exchange.body import ask_in, whole_body
from glm_gateway.exchange.destination import Destination, Placed, context_header, prompt_tokens
from glm_gateway.exchange.refused import Gone, Refused, not_found
from glm_gateway.exchange.settling import Settling
from glm_gateway.exchange.state import State
from glm_gateway.models.model import Model
from glm_gateway.models.only import ToGroup
from glm_gateway.models.placement import Placement
from glm_gateway.pages.page import JSON
from glm_gateway.proxy.client import BrokenReply
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.outgoing import Outgoing
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.proxy.request_ids import HEADER as REQUEST_ID_HEADER
from glm_gateway.proxy.request_ids import request_id_of
from glm_gateway.surfaces import responses
from glm_gateway.surfaces.ask import Ask
from glm_gateway.surfaces.routes import Kind, Route, api_of, route
from glm_gateway.surfaces.thinking import REPLY_HEADER
from glm_gateway.surfaces.words import Words
from glm_gateway.upstreams.passes import circle
from glm_gateway.upstreams.upstream import Upstream

log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INTERNAL = Failure(500, "internal error; the gateway's log has the details", "internal_error", code="internal_error")


TOLD_OF_CUT_S = 1.0
"""For the last word to a client that is cut; it must have ended, and be counted, before the gateway does."""


@dataclass
class Exchange:
    """One request of a client."""

    gateway: State
    scope: Message
    receive: Receive
    send: Send

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._headers: list[tuple[bytes, bytes]] = list(self.scope["headers"])
        self._request_id = request_id_of(self._headers)
        self._own_id = secrets.token_hex(16)  # the client's own may be used twice
        self._words = Words(api_of(self.scope["path"]), self._request_id)
        self._record = Record(
            self.gateway.audit,
            self.gateway.traces,
            self._request_id,
            self.scope["path"],
            self._began_s,
            self._loop.time,
        )
        self._to_client, self.send = self.send, self._told
        self._cors = self.gateway.cors
        self._has_started = False

    async def run(self) -> None:
        try:
            if self._cors is not None and asks_before(self.scope["method"], self._headers):
                await self._tell_browser(self._cors)
                return
            found = self._route()
            self._record.is_kept = found.kind in (Kind.GENERATE, Kind.COUNT, Kind.STORED)
            self._caller = await self._admitted()
            self._record.known(self._caller)
            match found.kind:
                case Kind.GENERATE | Kind.COUNT:
                    await self._relay(found)
                case Kind.MODELS | Kind.OWN:
                    await self._tell_page(found)
                case Kind.STORED:
                    await self._relay_stored(found)
        except Refused as refused:
            await self._fail(refused.failure, refused.headers)
        except Gone:
            pass
        except BrokenReply:
            raise
        except Exception as error:
            if self._has_started:
                raise
            log.exception("request=%s failed: %s", self._request_id, type(error).__name__)
            await self._fail(INTERNAL, ())
        finally:
            self._record.end()
            self.send = self._to_client  # nothing of a request leads back to it: it need not wait to be collected

    async def _told(self, message: Message) -> None:
        """Send a message to the client, with what pages of other origins need."""
        if message["type"] == "http.response.start":
            self._has_started = True
            self._record.status = message["status"]
            if self._cors is not None:
                message = {**message, "headers": [*message["headers"], *self._cors.headers(self._headers)]}
            if self.gateway.is_stopping:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await self._to_client(message)

    async def _tell_browser(self, cors: Cors) -> None:
        """Tell a browser whether its page may ask for a path. Nobody says who they are before. Raises Refused."""
        found = route(self.scope["path"])
        told = None if found is None else cors.preflight(self._headers, found.methods)
        if told is None:
            raise Refused(
                Failure(
                    403,
                    "pages of this origin may not ask for this path here",
                    "permission_error",
                    code="permission_denied",
                )
            )
        await self.send({"type": "http.response.start", "status": 204, "headers": told})
        await self.send({"type": "http.response.body", "body": b""})

    def _route(self) -> Route:
        """Return what the path is. Raises Refused."""
        speaks_anthropic = any(name == b"anthropic-version" for name, _ in self._headers)
        path, method = self.scope["path"], self.scope["method"]
        found = route(path, speaks_anthropic=speaks_anthropic)
        if found is None:
            raise not_found(f"{method[:16]} {path[:100]}: there is no such path")
        self._words = Words(found.api, self._request_id)
        if method not in found.methods:
            allowed = ", ".join(found.methods)
            raise Refused(
                Failure(
                    405,
                    f"{method[:16]} {path[:100]}: allowed is {allowed}",
                    "invalid_request_error",
                    code="method_not_allowed",
                )
            )
        return found

    async def _admitted(self) -> Caller:
        """Return who asks, by a request that does not go round. Raises Refused."""
        caller = await self.gateway.gate.caller(self.scope["method"], self.scope["path"], self._headers)
        if isinstance(caller, Failure):
            raise Refused(caller)
        if (refusal := circle(self._headers)) is not None:
            raise Refused(refusal)
        return caller

    async def _body(self) -> bytes:
        """Return the whole body, which counts as its caller's. Raises Gone and Refused."""
        if self.gateway.gate.mode is not Mode.NONE and isinstance(self.receive, Body):
            self.receive.caller = self._caller.tenant
        return await whole_body(self.receive)

    async def _relay(self, found: Route) -> None:
        gateway, body = self.gateway, await self._body()
        whole_s = time.monotonic()
        ask = await ask_in(body, gateway.turn)
        to = self._destination
        target = to.target(ask, found.kind)
        self._record.asked(target.name, mode=ask.mode)
        if found.kind is Kind.COUNT:
            await self._count(target, ask, body)
            return
        reserved = await self._reserved(target.name, ask)
        self._record.reserved(reserved.reservation.usage)
        placing = to.placing(target, ask, writes=True)
        to_group = context_header(reserved.context_tokens)
        relay = self._relay_of(placing, body, streams=ask.streams, added=reserved.headers, to_group=to_group)

        async def opening(num_prompt_tokens: int) -> Failure | None:
            over = await gateway.metering.reserve_more(reserved, num_prompt_tokens)
            if over is None:
                return None
            relay.reply_added = [*self._words.id_headers, *over.headers]
            return over.failure

        relay.hooks.opening = opening
        if isinstance(placing, Placement) and ask.streams:
            placing.tell = relay.tell_waiting
        times = None
        if not ask.in_background:  # nobody reads its tokens here
            times = relay.hooks.watching = gateway.telemetry.watch(
                target.name, self._headers, mode=ask.mode, streams=ask.streams, arrived_s=whole_s
            )
        settle = relay.hooks.ended = Settling(
            gateway.metering,
            gateway.background,
            gateway.keepers,
            reserved,
            relay,
            placing,
            to.told(placing),
            self._own_id,
            self._began_s,
        )
        gateway.metering.begin(reserved, self._own_id, relay.result)
        try:
            await self._run(relay, placing)
        finally:
            result = relay.result
            if times is not None:
                times.ended(result.outcome, is_plain=result.is_plain, first_byte_s=result.first_token_at)
            has_plain = result.is_plain and relay.status < 300 and not ask.in_background
            if isinstance(target, Model) and (result.progress.opened is not None or has_plain):
                target.hear_reply(result.group, in_frames=not result.is_plain)
                target.hear_thinking(_thinking_of(result.progress.opened))
            if isinstance(target, Model):
                self._record.revision = target.revision_of(result.group)
            await settle()
            self._record.entry = settle.entry
            relay.hooks.forget()

    async def _count(self, target: Model | Upstream, ask: Ask, body: bytes) -> None:
        """Have a group count tokens: that takes a request of its caller's, and no tokens."""
        metering = self.gateway.metering
        found = await metering.reserve_count(self._caller, target.name, self._words.api)
        if isinstance(found, OverLimit):
            raise Refused(found.failure, found.headers)
        placing = self._destination.placing(target, ask, writes=False)
        relay = self._relay_of(placing, body, streams=ask.streams, added=found.headers)
        try:
            await self._run(relay, placing)
        finally:
            await metering.end_count(found, relay.result)

    async def _reserved(self, model: str, ask: Ask) -> Reserved:
        """Reserve what a request may take. Raises Refused."""
        api = self._words.api
        found = await self.gateway.metering.reserve(self._caller, model, api, ask, prompt_tokens(ask.num_bytes))
        if isinstance(found, OverLimit):
            raise Refused(found.failure, found.headers)
        return found

    async def _relay_stored(self, found: Route) -> None:
        """Ask the group that keeps a response."""
        body = await self._body()
        group = self.gateway.keepers.of(found.name)
        models = self.gateway.models.values()
        model = next((model for model in models if model.has(group)), None)
        if model is None:
            raise not_found(f"no response {found.name[:100]} is stored here, or the group that kept it is no more")
        streams = b"stream=true" in self.scope["query_string"]
        keeper = ToGroup(model, group)
        relay = self._relay_of(keeper, body, streams=streams)

        async def hear() -> None:
            await self.gateway.background.hear(relay.stored)

        relay.hooks.ended = hear
        try:
            await self._run(relay, keeper)
        finally:
            relay.hooks.forget()

    async def _run(self, relay: Relay, placing: Placed) -> None:
        """Relay until the reply is told, or the client is gone, or there is no more time."""
        running = asyncio.create_task(relay.run())
        leaving = asyncio.create_task(self._left())
        self.gateway.relaying.add(running)
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if running.cancelled() and self.gateway.is_cut:
                with contextlib.suppress(TimeoutError):  # who does not read has nothing to be waited for
                    async with asyncio.timeout(TOLD_OF_CUT_S):
                        await relay.cut()
            elif running.done():
                running.result()
        except BrokenReply as error:
            log.warning("request=%s its reply broke off: %s", self._request_id, error)
            raise
        finally:
            leaving.cancel()
            self.gateway.relaying.discard(running)
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
            placing.close()
            self.gateway.telemetry.ended(
                placing.name,
                self._words.api,
                relay.result,
                waited_s=placing.waited_s,
            )
            result = relay.result
            if result.outcome is Outcome.FAILED and result.failure is not None:
                if placing.was_drained or (result.is_plain and placing.is_leaving(result.group)):
                    self.gateway.num_cut += 1
                    self.gateway.telemetry.cut_by_drain(placing.name)
                log.warning("request=%s group=%s failed: %s", self._request_id, result.group, result.failure.message)

    @property
    def _destination(self) -> Destination:
        return Destination(self.gateway, self._caller, self.scope["path"], self._headers, self._own_id, self._began_s)

    def _relay_of(
        self,
        placing: Placed,
        body: bytes,
        *,
        streams: bool,
        added: Sequence[tuple[bytes, bytes]] = (),
        to_group: Sequence[tuple[bytes, bytes]] = (),
    ) -> Relay:
        """added: headers of ours to the client. to_group: what a group is told beside who asks."""
        gateway, own_id = self.gateway, (REQUEST_ID_HEADER, self._request_id.encode())
        query, path = self.scope["query_string"].decode("latin-1"), self.scope["path"]
        outgoing = Outgoing(
            method=self.scope["method"],
            target=f"{path}?{query}" if query else path,
            headers=self._headers,
            body=body,
            added=[own_id, *self._destination.told(placing), *to_group],
            streams=streams,
        )
        is_response = path == responses.PATH or path.startswith(responses.PATH + "/")
        relay = Relay(
            outgoing,
            self._record.placing(placing),
            responses.ResponseWords(self._words) if is_response else self._words,
            self.send,
            bounds=gateway.bounds,
            waits=gateway.waits,
            reply_added=[*self._words.id_headers, *added],
        )
        self._record.relays(relay)
        return relay

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _tell_page(self, found: Route) -> None:
        query = self.scope["query_string"].decode("latin-1")
        page = await self.gateway.pages.page(found, self.scope["path"], query, self._caller)
        if isinstance(page, Failure):
            raise Refused(page)
        kept = [] if page.max_age_s is None else [(b"cache-control", b"max-age=%d" % page.max_age_s)]
        await self._answer(page.status, page.body, kept, kind=page.kind)

    async def _fail(self, failure: Failure, headers: Sequence[tuple[bytes, bytes]]) -> None:
        status, body = self._words.body(failure)
        own = [(name.encode(), value.encode()) for name, value in failure.headers.items()]
        await self._answer(status, body, [*own, *headers])

    async def _answer(
        self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), *, kind: bytes = JSON
    ) -> None:
        told = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            *self._words.id_headers,
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": told})
        is_head = self.scope["method"] == "HEAD"
        await self.send({"type": "http.response.body", "body": b"" if is_head else body})


def _thinking_of(opened: Open | None) -> str:
    """Return what a reply says of how it was answered; empty: nothing."""
    headers = [] if opened is None else opened.headers
    return next((value for name, value in headers if name.lower() == REPLY_HEADER), "")
