"""The management port: probes, metrics, the history of generations; promises and the policy of requests are put here.

Anyone may read. Only who knows GLM_MANAGEMENT_TOKEN may put promises or a policy; nothing else can be changed here.

/livez   200 as long as the supervisor's loop runs: a rank or a server that is broken is the supervisor's to fix, and a
         restart of the pod would only be slower.
/readyz  200 when requests should come here, else 503 with the state, and a sentence where that does not tell why: the
         server has as many connections as it allows, or the policy is awaited, for 10 s at most. It never depends on
         how many requests wait.
/metrics this process's metrics and the server's.
/group   the group as its leader sees it: state, load progress, the tokens in flight (null while the server does not
         answer), the digests of its promises and of its policy (null before the first), whether a first policy is
         awaited, how many servers died and how the last did, the last generations and why each ended.
/load    what the group carries: lines of JSON, one when something changed and at least every second, at most ten a
         second (load.py has the fields). null is not known. A few may listen at once; the next ones get 503.
/slo     PUT: promises in place of those before (docs/design/0007-autoscaling.md); the answer has their digest.
/policy  PUT: a policy in place of the one before (docs/design/0008-api.md); the answer has its digest.
"""

import contextlib
import hmac
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from glm_worker.errors import RequestRefused
from glm_worker.listening import listen
from glm_worker.margins import MANAGEMENT_S
from glm_worker.messages import Policy, Slo
from glm_worker.server.policy import parse_policy
from glm_worker.server.slo import MAX_BODY_BYTES, parse_slo
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.management.load import LoadBoard
from glm_worker.supervisor.management.load_stream import LoadStream

READER_LOST_S = 20  # what was sent is not taken, for so long: its reader is gone


class Role(Protocol):
    """What the management port needs of a leader or a follower."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    @property
    def why_not_ready(self) -> str: ...  # a sentence where the state does not tell it; else empty

    @property
    def load(self) -> LoadBoard | None: ...  # None in a pod that follows

    async def group(self) -> dict[str, Any]: ...

    async def metrics(self) -> str: ...

    def take_slo(self, slo: Slo) -> str: ...  # raises RequestRefused where promises are not taken

    def take_policy(self, policy: Policy) -> str: ...  # as take_slo


def management_app(role: Role, token: str = "") -> Starlette:
    """Return the ASGI application. token: what who puts something must know; empty: nobody may."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        said = f"{role.state}, not ready: {role.why_not_ready}" if role.why_not_ready else role.state
        return PlainTextResponse(f"{said}\n", status_code=200 if role.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(await role.metrics(), media_type=CONTENT_TYPE_LATEST)

    async def group(_: Request) -> Response:
        return Response(msgspec.json.encode(await role.group()), media_type="application/json")

    async def put(request: Request, what: str, take: Callable[[bytes], str]) -> Response:
        try:
            _check_token(request, token, what)
            return JSONResponse({"digest": take(await _body(request))})
        except RequestRefused as error:
            headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
            return PlainTextResponse(f"{error.message}\n", status_code=error.status, headers=headers)

    async def put_slo(request: Request) -> Response:
        return await put(request, "promises", lambda body: role.take_slo(parse_slo(body)))

    async def put_policy(request: Request) -> Response:
        return await put(request, "a policy", lambda body: role.take_policy(parse_policy(body)))

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/group", group),
            Route("/load", LoadStream(lambda: role.load), methods=["GET"]),
            Route("/slo", put_slo, methods=["PUT"]),
            Route("/policy", put_policy, methods=["PUT"]),
        ]
    )


def _check_token(request: Request, token: str, what: str) -> None:
    """Refuse who does not know the token, in a time that says nothing about it."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not token:
        raise RequestRefused(f"this pod has no GLM_MANAGEMENT_TOKEN, so nobody may put {what} to it", status=401)
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestRefused(f"put {what} with the header Authorization: Bearer GLM_MANAGEMENT_TOKEN", status=401)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestRefused(f"the body is larger than {MAX_BODY_BYTES} bytes, which is what is read", status=413)
    return bytes(body)


class ManagementServer:
    """The HTTP server of the management port, inside the supervisor's loop."""

    def __init__(self, settings: WorkerSettings, role: Role) -> None:
        self._role = role
        self._socket = listen(settings.host, settings.management_port, setting="GLM_MANAGEMENT_PORT")
        # For every connection it accepts: what was sent and is not taken for so long is kept for nobody
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READER_LOST_S * 1000)
        config = uvicorn.Config(
            management_app(role, settings.management_token),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=MANAGEMENT_S,
        )
        self._server = _QuietServer(config)

    async def serve(self) -> None:
        """Serve until stop is called."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        if self._role.load is not None:
            self._role.load.close()
        self._server.should_exit = True


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the supervisor."""
        yield
