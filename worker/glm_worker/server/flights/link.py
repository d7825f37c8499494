"""The link to the engine of one generation: a ZMQ PAIR socket that this process binds and rank 0 connects to."""

import asyncio
import logging
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from glm_worker.messages import FromEngine, ToEngine

log = logging.getLogger(__name__)


class EngineLink:
    """Sends and receives whole messages. Must be made and used inside the running loop.

    Nothing is dropped for want of room (no high-water mark): what is in flight is bounded by the admission of requests.
    """

    def __init__(self, context: zmq.asyncio.Context, generation: str, endpoint: str) -> None:
        self.generation = generation
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
        self._socket = context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._departures = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._coming: asyncio.Future[Any] | None = None
        self._socket.bind(endpoint)

    @property
    def has_unread(self) -> bool:
        """Whether anything has arrived that receive has not returned, while somebody receives."""
        return self._coming is None or self._coming.done() or bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    def send(self, message: ToEngine) -> None:
        """Queue a message at once, in order. After close it goes nowhere: the generation is dead."""
        if self._socket.closed:
            return
        sent = self._socket.send(self._encoder.encode(message))
        assert isinstance(sent, asyncio.Future)  # zmq.asyncio says only that it can be awaited
        sent.add_done_callback(_log_failure)

    async def receive(self) -> FromEngine:
        """Return the next message of this generation. Others, and what is no message at all, are logged and dropped."""
        while True:
            coming = self._socket.recv()
            assert isinstance(coming, asyncio.Future)
            self._coming = coming
            if coming.done():  # it had piled up: streams are written, and others have their turn, between two of those
                await asyncio.sleep(0)
            frame: bytes = await coming
            try:
                message = self._decoder.decode(frame)
            except msgspec.DecodeError as error:
                log.error("generation=%s a message of the engine cannot be read: %s", self.generation, error)
                continue
            if message.generation == self.generation:
                return message
            log.warning("generation=%s drops a message of generation %s", self.generation, message.generation)

    async def left(self) -> None:
        """Return when the engine's end is closed: whatever it said has arrived by then. Once."""
        await self._departures.recv_multipart()

    def close(self) -> None:
        self._socket.disable_monitor()
        self._departures.close(linger=0)
        self._socket.close()


def _log_failure(sent: "asyncio.Future[Any]") -> None:
    if not sent.cancelled() and (error := sent.exception()) is not None:
        log.warning("a message to the engine was lost: %s", error)
