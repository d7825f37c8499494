"""A server without HTTP for the tests of the supervisor: it speaks the control link and the engine's socket."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from glm_worker.control import ControlLink
from glm_worker.errors import ConfigError
from glm_worker.messages import (
    Drain,
    Drained,
    EngineReady,
    EngineServing,
    FirstAnswer,
    FromEngine,
    GenerationEnded,
    GenerationStarting,
    InFlightTokensReply,
    InFlightTokensRequest,
    LoadChanged,
    MetricsReply,
    MetricsRequest,
    ServerReady,
    SetPolicy,
    ToServer,
    Unavailable,
    WatchLoad,
)
from glm_worker.server.load import LoadTeller
from glm_worker.settings import WorkerSettings

IN_FLIGHT_TOKENS = 7
LOAD = LoadChanged(
    in_flight_tokens=IN_FLIGHT_TOKENS,
    tokens_to_prefill=3,
    oldest_waiting_s=0.0,
    max_running=4,
    max_model_len=2048,
    num_waiting=0,
    num_running=1,
    kv_usage=0.5,
    kv_tokens=4096,
    prefill_tokens_per_s=None,
    fingerprint="of the fake server",
    model="fake",
)


def run_server(settings: WorkerSettings, control_fd: int) -> None:
    """Say what a server says, until the supervisor hangs up."""
    asyncio.run(_run(settings, control_fd))


def drained_once_answered(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, with a request in flight that ends when there is a file `answered` in the run folder."""
    asyncio.run(_run(settings, control_fd, answered=settings.run_dir / "answered"))


def never_drained(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, with a request in flight that does not end."""
    asyncio.run(_run(settings, control_fd, drains=False))


def never_answered(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, and finish no request."""
    asyncio.run(_run(settings, control_fd, answers=False))


def notes_unavailable(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, and write down in the run folder why no generation will."""
    asyncio.run(_run(settings, control_fd, reasons=settings.run_dir / "unavailable"))


def notes_words(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, and write down in the run folder, in a file a process, what kind of message came, in which order."""
    asyncio.run(_run(settings, control_fd, words=settings.run_dir / f"words-{os.getpid()}"))


def never_listening(settings: WorkerSettings, control_fd: int) -> None:
    """Hang before the port is open."""
    threading.Event().wait()


def once_only(settings: WorkerSettings, control_fd: int) -> None:
    """Serve, if no server of this run folder did so before and left its note; else fail at once."""
    note = settings.run_dir / "served-once"
    if note.exists():
        raise ConfigError(f"{note} is there")
    note.touch()
    run_server(settings, control_fd)


def refuse(settings: WorkerSettings, control_fd: int) -> None:
    """Fail at once, as with a tokenizer that is missing."""
    raise ConfigError(f"no tokenizer in {settings.model}")


async def _run(
    settings: WorkerSettings,
    control_fd: int,
    *,
    answers: bool = True,
    drains: bool = True,
    answered: Path | None = None,
    reasons: Path | None = None,
    words: Path | None = None,
) -> None:
    link: ControlLink[ToServer] = await ControlLink.open(control_fd, ToServer)
    link.send(ServerReady(port=settings.http_port))
    engine: asyncio.Task[None] | None = None
    draining: asyncio.Task[None] | None = None
    teller = LoadTeller(lambda: LOAD, _teller(link))
    while (message := await link.receive()) is not None:
        if words is not None:
            await asyncio.to_thread(_note, words, message)
        match message:
            case GenerationStarting(endpoint=endpoint):
                engine = asyncio.create_task(_engine(link, endpoint, answers=answers))
            case GenerationEnded() if engine is not None:
                engine.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await engine
            case Drain() if drains:
                draining = draining or asyncio.create_task(_drain(link, answered))
            case Unavailable(reason=reason, retry_after_s=retry_after_s) if reasons is not None:
                reasons.write_text(f"{reason}; {retry_after_s} s")  # noqa: ASYNC240 - nothing else runs here
            case MetricsRequest(id=number):
                link.send(MetricsReply(id=number, text="fake_server_metric 1\n"))
            case WatchLoad(is_on=is_on):
                teller.watch(is_on=is_on)
            case InFlightTokensRequest(id=number):
                link.send(InFlightTokensReply(id=number, in_flight_tokens=IN_FLIGHT_TOKENS))


def _teller(link: ControlLink[ToServer]) -> Callable[[LoadChanged], Awaitable[None]]:
    async def tell(load: LoadChanged) -> None:
        link.send(load)

    return tell


def _note(words: Path, message: ToServer) -> None:
    said = f" {message.policy.reasoning.visibility}" if isinstance(message, SetPolicy) else ""
    with words.open("a") as file:
        file.write(f"{type(message).__name__}{said}\n")


async def _drain(link: ControlLink[ToServer], answered: Path | None) -> None:
    while answered is not None and not answered.exists():  # noqa: ASYNC110, ASYNC240 - a file of a test tells no event
        await asyncio.sleep(0.02)
    link.send(Drained(num_ended_early=0))


async def _engine(link: ControlLink[ToServer], endpoint: str, *, answers: bool) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR, socket_class=zmq.asyncio.Socket) as sock:
        sock.bind(endpoint)
        while True:
            message = msgspec.msgpack.decode(await sock.recv(), type=FromEngine)
            if isinstance(message, EngineReady):
                link.send(EngineServing(generation=message.generation))
                if answers:
                    link.send(FirstAnswer(generation=message.generation))
