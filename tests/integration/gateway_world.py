"""A gateway on a real port, before groups that a test has: servers with scripted engines, or sockets with scripts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import uvicorn
from starlette.datastructures import Headers

from glm_edge.errors.failure import Failure
from glm_edge.http.connections import Connections
from glm_edge.http.protocol import Answer, options
from glm_gateway.access.decide import Mode
from glm_gateway.admission.gate import Gate
from glm_gateway.app import Gateway
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group
from glm_gateway.surfaces.routes import api_of
from glm_gateway.surfaces.words import Words
from integration.free_ports import free_port

TOKEN = "token-of-the-gateway"


def member(name: str, port: int) -> Member:
    return Member(Group(name=name), "127.0.0.1", port)


def error_of_protocol(path: str, _: Headers, failure: Failure) -> Answer:
    status, body = Words(api_of(path), "r").body(failure)
    return Answer(status, failure.headers, body)


@contextlib.asynccontextmanager
async def a_gateway(name: str, members: Iterable[Member], **fields: Any) -> AsyncIterator[tuple[str, Gateway]]:
    """Run a gateway of one model in this loop; return its address and itself."""
    model = Model(name, Directory())
    model.replace(members)
    fields = {"gate": Gate(mode=Mode.NONE, tenant_secret=b"0" * 16), **fields}
    gateway = Gateway({name: model}, TOKEN, **fields)
    port = free_port()
    connections = Connections(lambda _: None, lambda _: None)
    config = uvicorn.Config(
        gateway,
        host="127.0.0.1",
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        **options(error_of_protocol, connections),
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}", gateway
    finally:
        server.should_exit = True
        await serving
        await gateway.background.close()
        model.directory.close()
