"""One request of a client, from its head: whose path it is, who asks; its body; which model; who answers it.

What is refused here is told in the words of the API that the path is of.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glm_edge.errors.failure import Failure
from glm_gateway.access.cors import Cors, asks_before
from glm_gateway.access.decide import Caller, Mode
from glm_gateway.admission.record import Record
from glm_gateway.exchange.asking import ask_keeper, count, generate
from glm_gateway.exchange.bodies import Body
from glm_gateway.exchange.body import ask_in, whole_body
from glm_gateway.exchange.destination import Destination
from glm_gateway.exchange.refused import Gone, Refused, not_found
from glm_gateway.exchange.relaying import Relaying
from glm_gateway.exchange.state import State
from glm_gateway.pages.page import JSON
from glm_gateway.proxy.client import BrokenReply
from glm_gateway.proxy.request_ids import request_id_of
from glm_gateway.surfaces.routes import Kind, Route, api_of, route
from glm_gateway.surfaces.words import Words
from glm_gateway.upstreams.passes import circle

log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INTERNAL = Failure(500, "internal error; the gateway's log has the details", "internal_error", code="internal_error")


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
                    await ask_keeper(self._way(await self._body()), found.name)
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
        body = await self._body()
        whole_s = time.monotonic()
        ask = await ask_in(body, self.gateway.turn)
        way = self._way(body)
        target = way.destination.target(ask, found.kind)
        self._record.asked(target.name, mode=ask.mode)
        if found.kind is Kind.COUNT:
            await count(way, target, ask)
        else:
            await generate(way, target, ask, whole_s=whole_s)

    def _way(self, body: bytes) -> Relaying:
        path = self.scope["path"]
        to = Destination(self.gateway, self._caller, path, self._headers, self._own_id, self._began_s)
        return Relaying(
            gateway=self.gateway,
            scope=self.scope,
            receive=self.receive,
            send=self.send,
            words=self._words,
            record=self._record,
            destination=to,
            headers=self._headers,
            request_id=self._request_id,
            body=body,
        )

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
