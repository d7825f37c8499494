"""The two ports of a gateway: of its clients, and for its management."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.datastructures import Headers

from glm_edge.errors.failure import Failure
from glm_edge.http import protocol
from glm_edge.http.connections import Connections
from glm_edge.open_files import connections_within, open_files_allowed
from glm_gateway.app import Gateway
from glm_gateway.config.config import GatewayConfig
from glm_gateway.management.port import Management
from glm_gateway.proxy.request_ids import request_id_of
from glm_gateway.surfaces.routes import api_of
from glm_gateway.surfaces.words import Words


class Server(uvicorn.Server):
    """Leaves signals alone: `main` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def of_clients(
    gateway: Gateway, management: Management, config: GatewayConfig, tls: ssl.SSLContext | None = None
) -> Server:
    """tls: how clients are spoken to; None: without it."""
    bound = connections_within(open_files_allowed())
    options = protocol.options(error_of_protocol, Connections(lambda _: None, management.full, bound=bound))
    if tls is not None:
        options["ssl_context_factory"] = lambda *_: tls
    return _server(gateway, config.host, config.port, options)


def of_management(management: Management, config: GatewayConfig) -> Server:
    return _server(management, config.host, config.management_port, {})


def error_of_protocol(path: str, headers: Headers, failure: Failure) -> protocol.Answer:
    """Return an error about what is no request yet, in the words of the API that has this path."""
    words = Words(api_of(path), request_id_of(headers.raw))
    status, body = words.body(failure)
    ids = {name.decode(): value.decode() for name, value in words.id_headers}
    return protocol.Answer(status, {**failure.headers, **ids}, body)


def _server(app: Any, host: str, port: int, options: dict[str, Any]) -> Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # who stands before us is nobody we believe
        **options,
    )
    return Server(config)
