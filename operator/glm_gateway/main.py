"""`glm-gateway`: reads its file, finds groups, listens on two ports, and waits for its requests when it is to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.datastructures import Headers

from glm_edge.errors.failure import Failure
from glm_edge.http import protocol
from glm_edge.http.connections import Connections
from glm_gateway.access.decide import Mode
from glm_gateway.access.source import KeySource
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.config.config import GatewayConfig
from glm_gateway.config.file import BadConfig, config_in
from glm_gateway.config.models import ModelConfig
from glm_gateway.config.secrets import secrets_in
from glm_gateway.continuation.progress import Bounds
from glm_gateway.groups.directory import Directory
from glm_gateway.groups.file import FileSource
from glm_gateway.groups.roster import Roster
from glm_gateway.groups.slice_watch import Access, SliceSource
from glm_gateway.hold.room import Bounds as HoldBounds
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.store import nothing_prior
from glm_gateway.management import Management
from glm_gateway.models.model import Model
from glm_gateway.proxy.request_ids import request_id_of
from glm_gateway.surfaces.routes import api_of
from glm_gateway.surfaces.words import Words
from glm_gateway.usage.service import UsageService

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
ENDPOINTS_FOLLOW_S = 3.0
"""How long requests are still taken after it has been told to stop: who sends them hears of it a moment later."""


async def serve(config: GatewayConfig, stopping: asyncio.Event, *, follow_s: float = ENDPOINTS_FOLLOW_S) -> None:
    """Serve until told to stop, then wait for the requests under way. Raises BadConfig."""
    secrets = secrets_in(os.environ)
    token, secret = secrets.token, secrets.secret
    async with contextlib.AsyncExitStack() as stack:
        models = [_model(each, config) for each in config.models]
        tasks = [asyncio.create_task(_follow(each, model)) for each, model in zip(config.models, models, strict=True)]
        stack.push_async_callback(_end, tasks)
        usage = None
        if config.usage is not None:
            usage = await UsageService.opened(config.usage)
            stack.push_async_callback(usage.close)
        store = MemoryStore(nothing_prior if usage is None else usage.spent)
        gateway = Gateway(
            {model.name: model for model in models},
            token,
            _gate(config, secret, stack),
            secret=secret,
            metering=Metering(quotas=config.quotas, store=store, usage=usage),
            bounds=Bounds(max_times=config.continuation.max_times),
        )
        management = Management(gateway)
        connections = Connections(lambda _: None, management.full)
        public = _server(gateway, config.host, config.port, protocol.options(error_of_protocol, connections))
        private = _server(management, config.host, config.management_port, {})
        serving = [asyncio.create_task(server.serve()) for server in (public, private)]
        try:
            await _first([asyncio.create_task(stopping.wait()), *serving])
        finally:
            management.is_stopping = True  # not ready: nobody new is sent here
            await asyncio.sleep(follow_s)
            public.should_exit = True
            await asyncio.wait(serving[:1], timeout=config.drain_seconds)
            num_cut = gateway.num_running
            if num_cut:
                log.warning("%d requests were cut after %g s of waiting for them", num_cut, config.drain_seconds)
            public.force_exit = private.should_exit = True
            await asyncio.gather(*serving, return_exceptions=True)


def error_of_protocol(path: str, headers: Headers, failure: Failure) -> protocol.Answer:
    """Return an error about what is no request yet, in the words of the API that has this path."""
    request_id = request_id_of(headers.raw)
    status, body = Words(api_of(path), request_id).body(failure)
    return protocol.Answer(status, {**failure.headers, "x-request-id": request_id}, body)


def _model(config: ModelConfig, of_all: GatewayConfig) -> Model:
    bounds = HoldBounds(timeout_s=of_all.hold.timeout_seconds, max_held=of_all.hold.max_held)
    return Model(config.name, Directory(), bounds=bounds)


async def _follow(config: ModelConfig, model: Model) -> None:
    """Find a model's groups, as long as this runs."""
    roster = Roster(model)
    try:
        where = config.groups
        if where.file is not None:
            await FileSource(where.file, roster.take).run()
        else:
            assert where.service is not None
            assert where.namespace is not None
            host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            await SliceSource(Access.in_cluster(host, port), where.namespace, where.service, roster.take).run()
    finally:
        await roster.close()
        model.directory.close()


def _gate(config: GatewayConfig, secret: bytes, stack: contextlib.AsyncExitStack) -> Gate:
    if config.auth.mode is Mode.NONE:
        log.warning("auth.mode is None: everybody who reaches this gateway is answered")
        return Gate(mode=Mode.NONE, tenant_secret=secret)
    assert config.auth.keys_folder is not None
    keys = KeySource(config.auth.keys_folder)
    keys.start()
    stack.callback(keys.close)
    return Gate(mode=Mode.KEYS, tenant_secret=secret, keyring=lambda: keys.keyring)


def _server(app: Any, host: str, port: int, options: dict[str, Any]) -> uvicorn.Server:
    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Leave signals alone: `main` has them."""
            yield

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


async def _first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the first of these to end. Raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="glm-gateway", description="The address of GLMDeployments.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's file, JSON or YAML")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(format=LOG_FORMAT, level=logging.INFO)
    try:
        config = config_in(path.read_text())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(lambda stopping: serve(config, stopping)))
    except OSError as error:
        sys.stderr.write(f"glm-gateway: {error}\n")
        return 1
    except BadConfig as error:
        sys.stderr.write(f"glm-gateway: {path}: {error}\n")
        return 2
    return 0


async def _until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await work(stopping)


if __name__ == "__main__":
    sys.exit(main())
