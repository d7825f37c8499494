"""The command: a file of requests in, a file of answers out; to be ended at any moment, and gone on with."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, Protocol

from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.offline.asgi import Reply
from glm_worker.offline.batch.lines import BatchLine, checked, read_lines
from glm_worker.offline.batch.output import Output
from glm_worker.offline.batch.progress import Tally
from glm_worker.offline.engine import Engine
from glm_worker.supervisor.evidence.causes import EXIT_ENGINE

EXIT_ANSWERED, EXIT_SOME_REFUSED, EXIT_UNUSABLE = 0, 1, 2
OVERLOADED = 503
RETRY_S = 0.5  # the engine takes all that is under way; a server's bounds on memory may not


class Engines(Protocol):
    """What answers: an Engine."""

    @property
    def num_under_way(self) -> int: ...
    def request(self, path: str, body: bytes) -> "Future[Reply]": ...
    def check(self) -> None: ...


class Interrupted(BaseException):
    """A signal asks for the end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def batch(requests: Path, answers: Path, settings: dict[str, Any]) -> int:
    """Answer what has no answer yet; return the exit code. settings: of an Engine, by name.

    0: every request has an answer; 1: some of the answers are errors; 2: a file, a setting or the model cannot be used;
    70: the engine failed; 128 and the number of a signal: ended by it. After the last two the same command goes on.
    """
    try:
        summary = checked(requests)
        if answers.exists() and answers.samefile(requests):
            raise ConfigError(f"{answers} is the file of the requests; name another one for the answers")
        with _ended_by_signals(), Output(answers) as output:
            strangers = len(output.done - summary.keys)
            if strangers:
                _say(f"{answers} has answers to {strangers} requests that {requests} does not have; they stay")
            before = len(output.done & summary.keys)
            with Tally(summary.num_requests, before, len(output.refused & summary.keys)) as tally:
                if before < summary.num_requests:
                    with _engine(**settings) as engine:
                        _answer_all(engine, requests, output, tally)
            _say(tally.sentence)
            if left := len(summary.keys - output.done):
                raise ConfigError(f"{requests} has changed since it was checked: {left} requests had no turn")
            return EXIT_SOME_REFUSED if output.refused & summary.keys else EXIT_ANSWERED
    except ConfigError as error:
        _say(f"glm-worker: {error}")
        return EXIT_UNUSABLE
    except EngineFailed as error:
        _say(f"glm-worker: {error}; the same command goes on where this one ended")
        return EXIT_ENGINE
    except OSError as error:
        _say(f"glm-worker: {answers} cannot be written: {error.strerror}; the same command goes on")
        return EXIT_UNUSABLE
    except Interrupted as error:
        _say(f"ended by {signal.Signals(error.number).name}; the same command goes on where this one ended")
        return 128 + error.number


def _engine(model: str | None = None, **settings: Any) -> Engine:
    model = model or os.environ.get("GLM_MODEL")
    if not model:
        raise ConfigError("GLM_MODEL is not set and has no default")
    return Engine(model, **settings)


def _answer_all(engine: Engines, requests: Path, output: Output, tally: Tally) -> None:
    """Have as many requests under way as the engine likes, and write each answer when it comes: in any order."""
    left = (request for request in read_lines(requests) if request.key not in output.done)
    came: SimpleQueue[tuple[BatchLine, Future[Reply]]] = SimpleQueue()
    under_way: set[Future[Reply]] = set()

    def ask(request: BatchLine) -> None:
        asked = engine.request(request.url, bytes(request.body))
        under_way.add(asked)
        asked.add_done_callback(lambda future: came.put((request, future)))

    try:
        for request in left:
            ask(request)
            if len(under_way) >= engine.num_under_way:
                _take(engine, came, under_way, output, tally, ask)
        while under_way:
            _take(engine, came, under_way, output, tally, ask)
    finally:
        for asked in under_way:
            asked.cancel()


def _take(
    engine: Engines,
    came: "SimpleQueue[tuple[BatchLine, Future[Reply]]]",
    under_way: "set[Future[Reply]]",
    output: Output,
    tally: Tally,
    ask: "Ask",
) -> None:
    """Wait for an answer and write it. What was refused for want of room is asked again."""
    request, asked = came.get()
    under_way.discard(asked)
    engine.check()  # what ends because the engine has failed is no answer
    reply = asked.result()
    if reply.status == OVERLOADED:
        time.sleep(RETRY_S)
        ask(request)
        return
    output.write(request, reply)
    tally.count(reply)


class Ask(Protocol):
    def __call__(self, request: BatchLine) -> None: ...


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise Interrupted in the body when a signal asks for the end; a second one ends the process at once."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
