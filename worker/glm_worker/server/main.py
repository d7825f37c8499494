"""The server process: HTTP in front, the control link of its supervisor behind."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop

from glm_edge.http import protocol
from glm_edge.http.connections import Connections
from glm_edge.open_files import connections_within, open_files_allowed, raise_open_files
from glm_worker.control import ControlLink
from glm_worker.errors import Overloaded
from glm_worker.listening import listen
from glm_worker.margins import HANG_UP_S
from glm_worker.messages import (
    CompileAt,
    Drain,
    Full,
    GenerationEnded,
    GenerationStarting,
    InFlightTokensReply,
    InFlightTokensRequest,
    LoadChanged,
    MetricsReply,
    MetricsRequest,
    ServerReady,
    SetPolicy,
    SetSlo,
    ToServer,
    Unavailable,
    WatchLoad,
)
from glm_worker.models import resolve
from glm_worker.server.app import error_of_protocol, make_app
from glm_worker.server.backend import Backend
from glm_worker.server.checkpoint import Checkpoint, fingerprint_of
from glm_worker.server.edge import memory
from glm_worker.server.edge.tls import TlsFolder
from glm_worker.server.flights.draining import Drainer, OpenExchanges
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.generations import Generations
from glm_worker.server.flights.journal import Journal, QueueLimits
from glm_worker.server.flights.spans import spans_to
from glm_worker.server.jobs.context import Rules
from glm_worker.server.jobs.job import Room
from glm_worker.server.load import LoadTeller
from glm_worker.server.metrics.telemetry import Telemetry
from glm_worker.server.policy import LivePolicy, policy_of
from glm_worker.server.structured.compiler import Compiler
from glm_worker.server.structured.grammars import Grammars
from glm_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

CLIENT_IDLE_S = 30  # then the kernel asks the client's machine whether it is still there, again and again
CLIENT_LOST_S = 120  # no answer to that, or what was sent is not taken, for so long: it is gone


def run_server(settings: WorkerSettings, control_fd: int) -> None:
    """Serve until the supervisor closes the control link. Raises ConfigError for a model that cannot be served."""
    raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, control_fd, before_serving=memory.settle))


def prepare(settings: WorkerSettings) -> None:
    """Read what takes long, in a process that stands by for a server: the tokenizer of a large model takes a second."""
    folder = resolve(settings.model)
    _prepared[folder] = _read(folder, settings)


_prepared: dict[Path, Checkpoint] = {}  # by folder; what changes there meanwhile is read again


def _read(folder: Path, settings: WorkerSettings) -> Checkpoint:
    return Checkpoint.read(folder, name=settings.served_model_name, max_model_len=settings.max_model_len)


def _checkpoint(folder: Path, settings: WorkerSettings) -> Checkpoint:
    """Return the checkpoint, as it was prepared where nothing of it has changed since."""
    prepared = _prepared.pop(folder, None)
    is_same = prepared is not None and prepared.fingerprint == fingerprint_of(folder)
    return prepared if prepared is not None and is_same else _read(folder, settings)


async def serve(
    settings: WorkerSettings, control: int | socket.socket, *, before_serving: Callable[[], None] = lambda: None
) -> None:
    """Serve in the running loop until the control link closes. before_serving: called when all is made that stays."""
    folder = resolve(settings.model)
    tls = TlsFolder(Path(settings.tls_folder)) if settings.tls_folder else None
    checkpoint = _checkpoint(folder, settings)
    listener = _listen(settings.host, settings.http_port)
    link: ControlLink[ToServer] = await ControlLink.open(control, ToServer)
    telemetry = Telemetry(checkpoint.name, settings.identity)
    limits = QueueLimits(settings.max_waiting_requests, settings.max_waiting_tokens, settings.max_num_seqs)
    flights = Flights(Journal(limits), telemetry, Room(checkpoint.max_model_len))
    rules = Rules(
        control_tokens_are_text=settings.control_tokens == "text",
        any_tool_name=settings.undeclared_tools == "call",
        prefix_block_size=settings.block_size if settings.prefix_cache else 0,
    )
    policy = LivePolicy(policy_of(settings))
    compiler = Compiler(folder)
    spans = spans_to(settings.trace_endpoint, model=checkpoint.name, identity=settings.identity)
    backend = Backend(
        checkpoint=checkpoint,
        flights=flights,
        telemetry=telemetry,
        rules=rules,
        policy=lambda: policy.current,
        grammars=Grammars(compiler),
        started=int(time.time()),
        group=settings.group,
        gateway_token=settings.gateway_token,
        spans=spans,
    )
    exchanges = OpenExchanges(make_app(backend), backend.work)
    generations = Generations(flights, link.send)
    drainer = Drainer(backend.work, flights, link.send)

    async def tell(load: LoadChanged) -> None:
        link.send(load)
        await link.flush()

    teller = LoadTeller(lambda: _load(backend), tell)
    bound = connections_within(open_files_allowed())
    connections = Connections(telemetry.connections.set, lambda reason: link.send(Full(reason)), bound=bound)

    server = _HttpServer(
        uvicorn.Config(
            exchanges,
            lifespan="off",
            access_log=False,  # a line a request costs more than it tells; the metrics count them
            log_config=None,
            **protocol.options(error_of_protocol, connections),
            ssl_context_factory=None if tls is None else lambda *_: tls.context,
            timeout_graceful_shutdown=HANG_UP_S,
        )
    )
    before_serving()
    # Before anybody is answered: the promises wait in the link since before this process began.
    follower = asyncio.create_task(_follow(link, backend, policy, compiler, generations, drainer, teller))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    renewing = None if tls is None else asyncio.create_task(tls.follow())
    try:
        # The port is open since _listen: who connects before uvicorn accepts waits in the backlog.
        link.send(ServerReady(listener.getsockname()[1]))
        await asyncio.wait({serving, follower}, return_when=asyncio.FIRST_COMPLETED)
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower
    finally:
        flights.fail_all(Overloaded("the server stops; try again", retry_after_s=1))
        generations.close()
        if renewing is not None:
            renewing.cancel()
        teller.watch(is_on=False)
        await compiler.close()
        await asyncio.to_thread(spans.close)
        server.should_exit = True
        await serving
        listener.close()
        link.close()


async def _follow(
    link: ControlLink[ToServer],
    backend: Backend,
    policy: LivePolicy,
    compiler: Compiler,
    generations: Generations,
    drainer: Drainer,
    teller: LoadTeller,
) -> None:
    """Do what the supervisor says until it is gone."""
    flights = backend.flights
    while (message := await link.receive()) is not None:
        match message:
            case GenerationStarting():
                await generations.start(message)
            case GenerationEnded():
                await generations.end(message)
            case Unavailable(reason=reason, retry_after_s=retry_after_s):
                flights.suspend(reason, retry_after_s)
            case Drain():
                drainer.drain(message)
            case SetSlo() | SetPolicy() | CompileAt():
                _keep(message, backend, policy, compiler)
            case WatchLoad(is_on=is_on):
                teller.watch(is_on=is_on)
            case MetricsRequest() | InFlightTokensRequest():
                link.send(_reply(message, backend))
    log.info("the supervisor closed its link: stopping")


def _keep(said: SetSlo | SetPolicy | CompileAt, backend: Backend, policy: LivePolicy, compiler: Compiler) -> None:
    """Take what holds from now on."""
    match said:
        case SetSlo(slo=slo):
            backend.telemetry.promise(slo)
        case SetPolicy(policy=current):
            policy.current = current
        case CompileAt(path=path):
            compiler.path = path


def _reply(question: MetricsRequest | InFlightTokensRequest, backend: Backend) -> MetricsReply | InFlightTokensReply:
    if isinstance(question, MetricsRequest):
        return MetricsReply(question.id, backend.telemetry.exposition(backend.flights.gauges()))
    return InFlightTokensReply(question.id, backend.flights.in_flight_tokens)


def _load(backend: Backend) -> LoadChanged:
    """Return what stands now. What only a generation knows is None while none serves."""
    flights = backend.flights
    gauges, is_served = flights.gauges(), flights.is_served
    return LoadChanged(
        in_flight_tokens=gauges.in_flight_tokens,
        tokens_to_prefill=gauges.num_uncached_waiting + gauges.num_tokens_left,
        oldest_waiting_s=round(gauges.oldest_waiting_s, 3),
        max_running=gauges.max_running,
        max_model_len=flights.room.num_tokens,
        num_waiting=gauges.num_waiting,
        num_running=gauges.num_running if is_served else None,
        kv_usage=round(gauges.kv_cache_usage, 4) if is_served else None,
        kv_tokens=gauges.num_blocks * gauges.block_size or None,
        prefill_tokens_per_s=backend.telemetry.prefill_speed.tokens_per_s,
        fingerprint=backend.checkpoint.fingerprint,
        model=backend.checkpoint.name,
    )


class _HttpServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the supervisor ends this process through the control link."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    listener = listen(host, port, setting="GLM_HTTP_PORT")
    # For every connection it accepts: a client whose machine is gone says nothing, not even that
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, CLIENT_IDLE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, CLIENT_IDLE_S // 3)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_LOST_S * 1000)
    return listener
