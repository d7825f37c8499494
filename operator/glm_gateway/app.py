"""The gateway as a pure ASGI application: from a head to the relay of its reply.

In this order: whose path it is, which method; the body, bounded; which model; where it goes. What is refused here is
told in the words of the API that the path is of.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from glm_edge.errors.failure import Failure
from glm_edge.frames import Open
from glm_edge.http.heads import MAX_BODY_BYTES, TOO_LARGE, body_too_large
from glm_edge.json_bounds import Unfit, check_size
from glm_gateway.access.cors import Cors, asks_before
from glm_gateway.access.decide import Caller, Mode
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering, Refused, Reserved
from glm_gateway.admission.record import Record
from glm_gateway.audit.log import AuditLog
from glm_gateway.audit.metrics import AuditMetrics
from glm_gateway.continuation.progress import Bounds
from glm_gateway.ladder.promises import class_of, first_token_s, told_headers
from glm_gateway.metrics.telemetry import Telemetry
from glm_gateway.models.model import Model
from glm_gateway.models.names import Names
from glm_gateway.models.only import ToGroup, ToUpstream
from glm_gateway.models.placement import Placement
from glm_gateway.pages.of_worker import described_by_a_worker
from glm_gateway.pages.page import JSON
from glm_gateway.pages.pages import Pages
from glm_gateway.proxy.heads import MODEL_HEADER, ROLE_HEADER, TENANT_HEADER, TOKEN_HEADER
from glm_gateway.proxy.relay import BrokenReply, Outcome, Outgoing, Relay, Waits
from glm_gateway.proxy.request_ids import HEADER as REQUEST_ID_HEADER
from glm_gateway.proxy.request_ids import request_id_of
from glm_gateway.routing.classes import HIGHEST, LOWEST, Classes, place_of
from glm_gateway.routing.pick import Request
from glm_gateway.routing.prefix import prefix_key, prefix_of
from glm_gateway.surfaces.ask import Ask, NoJson, read
from glm_gateway.surfaces.routes import Kind, Route, api_of, route
from glm_gateway.surfaces.thinking import REPLY_HEADER
from glm_gateway.surfaces.words import Words
from glm_gateway.traces.traces import Traces
from glm_gateway.upstreams.upstream import Upstream

log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_IDLE_S, BODY_S = 30.0, 300.0  # between two parts of a body, and for the whole of it
COUNTED_AT_ONCE = 2**20  # bytes of a body that are looked through without a thread: a millisecond
BYTES_A_TOKEN = 4.0
"""Of a prompt, before any group has counted one: what English text has."""


INTERNAL = Failure(500, "internal error; the gateway's log has the details", "internal_error", code="internal_error")


class _Gone(Exception):
    """The client went away before its request was whole."""


class _Refused(Exception):
    def __init__(self, failure: Failure, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.headers = headers


@dataclass
class Gateway:
    """models: by name. token: says to workers who we are. gate: who may ask. metering: how much.

    secret: keys the hashes of prompts; the same in all replicas. priorities: classes of callers. cors: pages of other
    origins that may read replies; None: none may.
    """

    models: Mapping[str, Model]
    token: str
    gate: Gate
    secret: bytes = b""
    metering: Metering = field(default_factory=Metering)
    bounds: Bounds = field(default_factory=Bounds)
    waits: Waits = field(default_factory=Waits)
    priorities: Classes = field(default_factory=Classes)
    cors: Cors | None = None

    audit: AuditLog | None = None
    traces: Traces | None = None

    def __post_init__(self) -> None:
        self.num_running = 0
        self.relaying: set[asyncio.Task[None]] = set()
        self.is_cut = False
        self.names = Names(self.models)
        self.telemetry = Telemetry(list({model.name: model for model in self.models.values()}.values()))
        for collector in self.metering.collectors:
            self.telemetry.registry.register(collector)
        if self.audit is not None:
            self.telemetry.registry.register(AuditMetrics(self.audit))
        self.pages = Pages(
            names=lambda: self.names.known,
            mode=self.gate.mode,
            usage=self.metering.usage,
            traces=self.traces,
            of_worker=lambda: described_by_a_worker(list(self.models.values())),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.num_running += 1
        try:
            await _Exchange(self, scope, receive, send).run()
        finally:
            self.num_running -= 1

    def cut(self) -> None:
        """Tell all that is under way that there is no more time for it. It ends soon after."""
        self.is_cut = True
        for task in self.relaying:
            task.cancel()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: they are also where no group is, for they wait."""
        return bool(self.models)


@dataclass
class _Exchange:
    """One request of a client."""

    gateway: Gateway
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
        except _Refused as refused:
            await self._fail(refused.failure, refused.headers)
        except _Gone:
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

    async def _told(self, message: Message) -> None:
        """Send a message to the client, with what pages of other origins need."""
        if message["type"] == "http.response.start":
            self._has_started = True
            self._record.status = message["status"]
            if self._cors is not None:
                message = {**message, "headers": [*message["headers"], *self._cors.headers(self._headers)]}
        await self._to_client(message)

    async def _tell_browser(self, cors: Cors) -> None:
        """Tell a browser whether its page may ask for a path. Nobody says who they are before. Raises _Refused."""
        found = route(self.scope["path"])
        told = None if found is None else cors.preflight(self._headers, found.methods)
        if told is None:
            raise _Refused(
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
        """Return what the path is. Raises _Refused."""
        speaks_anthropic = any(name == b"anthropic-version" for name, _ in self._headers)
        path, method = self.scope["path"], self.scope["method"]
        found = route(path, speaks_anthropic=speaks_anthropic)
        if found is None:
            raise _Refused(_not_found(f"{method[:16]} {path[:100]}: there is no such path"))
        self._words = Words(found.api, self._request_id)
        if method not in found.methods:
            allowed = ", ".join(found.methods)
            raise _Refused(
                Failure(
                    405,
                    f"{method[:16]} {path[:100]}: allowed is {allowed}",
                    "invalid_request_error",
                    code="method_not_allowed",
                )
            )
        return found

    async def _admitted(self) -> Caller:
        """Return who asks. Raises _Refused."""
        caller = await self.gateway.gate.caller(self.scope["method"], self.scope["path"], self._headers)
        if isinstance(caller, Failure):
            raise _Refused(caller)
        return caller

    async def _relay(self, found: Route) -> None:
        body = await self._body()
        await _check_size(body)
        try:
            ask = read(body)
        except NoJson:
            raise _Refused(
                Failure(400, "the body is not a JSON object", "invalid_request_error", code="invalid_json")
            ) from None
        target = self._target(ask, found)
        self._record.asked(target.name, mode=ask.mode)
        if found.kind is Kind.COUNT:
            placing = self._placing(target, ask, writes=False)
            await self._run(self._relay_of(placing, body, streams=ask.streams), placing)
            return
        reserved = await self._reserved(target.name, ask)
        self._record.reserved(reserved.reservation.usage)
        placing = self._placing(target, ask, writes=True)
        relay = self._relay_of(placing, body, streams=ask.streams, added=reserved.headers)
        if isinstance(placing, Placement) and ask.streams:
            placing.tell = relay.tell_waiting
        try:
            await self._run(relay, placing)
        finally:
            first_s = relay.first_token_at
            has_plain = relay.is_plain and relay.status < 300 and not ask.in_background
            if isinstance(target, Model) and (relay.progress.opened is not None or has_plain):
                target.hear_reply(relay.group, in_frames=not relay.is_plain)
                target.hear_thinking(_thinking_of(relay.progress.opened))
            if isinstance(target, Model):
                self._record.revision = target.revision_of(relay.group)
            self._record.entry = await asyncio.shield(
                self.gateway.metering.settle(
                    reserved,
                    self._own_id,
                    relay,
                    e2e_s=self._loop.time() - self._began_s,
                    ttft_s=None if first_s is None else first_s - self._began_s,
                )
            )

    async def _reserved(self, model: str, ask: Ask) -> Reserved:
        """Reserve what a request may take. Raises _Refused."""
        prompt_tokens = _prompt_tokens(ask.num_bytes)
        api = self._words.api
        found = await self.gateway.metering.reserve(self._caller, model, api, ask, prompt_tokens)
        if isinstance(found, Refused):
            raise _Refused(found.failure, found.headers)
        return found

    async def _relay_stored(self, found: Route) -> None:
        """Ask the group that keeps a response, which its id names."""
        body = await self._body()
        group = _group_of(found.name)
        models = self.gateway.models.values()
        model = next((model for model in models if model.has(group)), None)
        if model is None:
            raise _Refused(
                _not_found(f"no response {found.name[:100]} is stored here, or the group that kept it is no more")
            )
        streams = b"stream=true" in self.scope["query_string"]
        keeper = ToGroup(model, group)
        await self._run(self._relay_of(keeper, body, streams=streams), keeper)

    async def _run(self, relay: Relay, placing: Placement | ToGroup | ToUpstream) -> None:
        """Relay until the reply is told, or the client is gone, or there is no more time."""
        running = asyncio.create_task(relay.run())
        leaving = asyncio.create_task(self._left())
        self.gateway.relaying.add(running)
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if running.cancelled() and self.gateway.is_cut:
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
                relay,
                began_s=self._began_s,
                now=self._loop.time(),
                waited_s=placing.waited_s,
            )
            if relay.outcome is Outcome.FAILED and relay.failure is not None:
                log.warning("request=%s group=%s failed: %s", self._request_id, relay.group, relay.failure.message)

    def _placing(self, target: Model | Upstream, ask: Ask, *, writes: bool) -> Placement | ToGroup | ToUpstream:
        if isinstance(target, Upstream):
            return ToUpstream(target)
        if ask.previous is not None:
            return ToGroup(target, _group_of(ask.previous), writes=writes)
        return self._placement(target, ask, writes=writes)

    def _placement(self, model: Model, ask: Ask, *, writes: bool) -> Placement:
        prefix = prefix_of((*ask.head, *ask.turns), prefix_key(self.gateway.secret, self._caller.tenant))
        prompt_tokens = _prompt_tokens(prefix.num_bytes)
        of_caller = self.gateway.priorities.of_group(self._caller.group)
        promise_s = of_caller.promise_s
        if promise_s is None:
            promise_s = first_token_s(class_of(model.slo, mode=ask.mode or model.default_mode, headers=self._headers))
        place = place_of(
            msgspec.structs.replace(of_caller, promise_s=promise_s),
            arrived_s=self._began_s,
            number=next(model.numbers),
            priority=min(max(ask.priority or 0, LOWEST), HIGHEST),
            deadline_s=ask.deadline_s,
        )
        return Placement(
            model,
            Request(key=self._own_id, prompt_tokens=prompt_tokens, prefix=prefix, sticky=self._sticky),
            place,
            num_bytes=ask.num_bytes,
            picked=self.gateway.telemetry.picked,
            promise_s=promise_s,
            deadline_s=ask.deadline_s,
            may_go_outside=writes and Upstream.takes(self.scope["path"]),
            writes=writes,
        )

    @property
    def _sticky(self) -> str:
        """Who stays on an arm: a caller; where nobody knows callers each request is on its own."""
        return "" if self.gateway.gate.mode is Mode.NONE else self._caller.tenant

    def _relay_of(
        self,
        placing: Placement | ToGroup | ToUpstream,
        body: bytes,
        *,
        streams: bool,
        added: Sequence[tuple[bytes, bytes]] = (),
    ) -> Relay:
        """added: headers of ours to the client."""
        gateway, own_id = self.gateway, (REQUEST_ID_HEADER, self._request_id.encode())
        of_model = [] if isinstance(placing, ToUpstream) else _told_of_model(placing.model, self._headers)
        query, path = self.scope["query_string"].decode("latin-1"), self.scope["path"]
        outgoing = Outgoing(
            method=self.scope["method"],
            target=f"{path}?{query}" if query else path,
            headers=self._headers,
            body=body,
            added=[(TOKEN_HEADER, gateway.token.encode()), own_id, *of_model, *_told_of(self._caller)],
            streams=streams,
        )
        relay = Relay(
            outgoing,
            self._record.placing(placing),
            self._words,
            self.send,
            bounds=gateway.bounds,
            waits=gateway.waits,
            reply_added=[own_id, *added],
        )
        self._record.relays(relay)
        return relay

    def _target(self, ask: Ask, found: Route) -> Model | Upstream:
        """Return where a request goes. Raises _Refused."""
        models, names, path = self.gateway.models, self.gateway.names, self.scope["path"]
        if ask.model is None:
            if len(models) == 1 and found.kind is Kind.COUNT:
                return next(iter(models.values()))
            raise _Refused(
                Failure(400, "model is missing", "invalid_request_error", "model", "missing_required_parameter")
            )
        if ask.previous is not None and (keeper := names.keeper(ask.model, _group_of(ask.previous))) is not None:
            return keeper
        is_for_agents = path.startswith("/api/anthropic")  # they ask for a vendor's names there
        if is_for_agents and len(models) == 1 and ask.model.startswith("claude") and ask.model not in names.known:
            return next(iter(models.values()))
        target = names.target(ask.model, self._sticky or self._own_id, path)
        if isinstance(target, Failure):
            raise _Refused(target)
        return target

    async def _body(self) -> bytes:
        """Return the whole body. Raises _Gone, and _Refused for one that is too long or too slow."""
        parts: list[bytes] = []
        num_bytes = 0
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    async with asyncio.timeout(BODY_IDLE_S):
                        message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    part: bytes = message.get("body", b"")
                    num_bytes += len(part)
                    if num_bytes <= MAX_BODY_BYTES:
                        parts.append(part)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _Refused(
                Failure(
                    408,
                    f"the body did not come: a part of it within {BODY_IDLE_S:g} seconds, and all within {BODY_S:g},"
                    " are allowed",
                    "invalid_request_error",
                    code="request_timeout",
                )
            ) from None
        if num_bytes > MAX_BODY_BYTES:
            raise _Refused(body_too_large(TOO_LARGE))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _tell_page(self, found: Route) -> None:
        query = self.scope["query_string"].decode("latin-1")
        page = await self.gateway.pages.page(found, self.scope["path"], query, self._caller)
        if isinstance(page, Failure):
            raise _Refused(page)
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
            (REQUEST_ID_HEADER, self._request_id.encode()),
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": told})
        is_head = self.scope["method"] == "HEAD"
        await self.send({"type": "http.response.body", "body": b"" if is_head else body})


async def _check_size(body: bytes) -> None:
    """Raise _Refused for a body with more in it than is read. Large ones are counted beside the loop."""
    try:
        if len(body) > COUNTED_AT_ONCE:
            await asyncio.to_thread(check_size, body)
        else:
            check_size(body)
    except Unfit as unfit:
        raise _Refused(unfit.failure) from None


def _prompt_tokens(num_bytes: int) -> int:
    return max(1, math.ceil(num_bytes / BYTES_A_TOKEN))


def _told_of(caller: Caller) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a worker who asks: a role, and a tenant that is no name."""
    role = [] if caller.role is None else [(ROLE_HEADER, caller.role.encode())]
    return [(TENANT_HEADER, caller.tenant.encode()), *role]


def _thinking_of(opened: Open | None) -> str:
    """Return what a reply says of how it was answered; empty: nothing."""
    headers = [] if opened is None else opened.headers
    return next((value for name, value in headers if name.lower() == REPLY_HEADER), "")


def _told_of_model(model: Model, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a worker which model is meant, and those that its classes of promises go by."""
    return [(MODEL_HEADER, model.name.encode()), *told_headers(model.slo, headers)]


def _group_of(response_id: str) -> str:
    """Return the group that a response's id names: resp_<group>_<digits>."""
    return response_id.removeprefix("resp_").rpartition("_")[0]


def _not_found(message: str, code: str = "not_found") -> Failure:
    return Failure(404, message, "invalid_request_error", code=code)
