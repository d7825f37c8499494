"""The management port: probes, metrics and the history of generations. It changes nothing: anyone may ask.

/livez   200 as long as the supervisor's loop runs: a rank or a server that is broken is the supervisor's to mend, and a
         restart of the pod would only be slower.
/readyz  200 when requests should come here, else 503 with the state.
/metrics this process's metrics and the server's.
/group   the group as its leader sees it: state, load progress, the tokens in flight (null while the server does not
         answer), the last generations and why each ended.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from glm_worker.listening import listen
from glm_worker.settings import WorkerSettings


class Role(Protocol):
    """What the management port needs of a leader or a follower."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    async def group(self) -> dict[str, Any]: ...

    async def metrics(self) -> str: ...


def management_app(role: Role) -> Starlette:
    """Return the ASGI application."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse(f"{role.state}\n", status_code=200 if role.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(await role.metrics(), media_type=CONTENT_TYPE_LATEST)

    async def group(_: Request) -> Response:
        return Response(msgspec.json.encode(await role.group()), media_type="application/json")

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/group", group),
        ]
    )


class ManagementServer:
    """The HTTP server of the management port, inside the supervisor's loop."""

    def __init__(self, settings: WorkerSettings, role: Role) -> None:
        self._socket = listen(settings.host, settings.management_port, setting="GLM_MANAGEMENT_PORT")
        config = uvicorn.Config(
            management_app(role), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = _QuietServer(config)

    async def serve(self) -> None:
        """Serve until stop is called."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the supervisor."""
        yield
