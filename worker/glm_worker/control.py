"""Framed msgpack over a stream socket: the links supervisor <-> server and supervisor <-> supervisor.

A frame is a 4-byte big-endian length and one msgpack message, decoded against the type the receiver expects: anything
else on the wire is a ProtocolError, never an object.
"""

import asyncio
import socket
from typing import Any, Generic, TypeVar

import msgspec

from glm_worker.errors import GlmWorkerError

MAX_FRAME_BYTES = 16 * 2**20  # a page of metrics is the largest message; more is not one of our peers
HEADER_BYTES = 4
_encoder = msgspec.msgpack.Encoder()

Received = TypeVar("Received")


class ProtocolError(GlmWorkerError):
    """The other side sent something that is not a message of this link."""


def encode_frame(message: msgspec.Struct) -> bytes:
    """Return the message as it goes over the wire."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_BYTES) + body


def frame_length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises ProtocolError past MAX_FRAME_BYTES."""
    length = int.from_bytes(header)
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return length


class ControlLink(Generic[Received]):
    """One end of a link. Received is the union of messages that this end accepts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receives: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[Received] = msgspec.msgpack.Decoder(receives)

    @classmethod
    async def open(cls, sock: socket.socket | int, receives: Any) -> "ControlLink[Received]":
        """Take over a connected stream socket, or an inherited file descriptor of one.

        receives: type or union to decode to, for example messages.ToServer. The link owns the socket from here.
        """
        if isinstance(sock, int):
            sock = socket.socket(fileno=sock)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(reader, writer, receives)

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message. Never blocks; what cannot be delivered any more is dropped, and receive then says None."""
        if not self._writer.is_closing():
            self._writer.write(encode_frame(message))

    async def flush(self) -> None:
        """Wait until what was sent has left this process, or the other side is gone."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    async def receive(self) -> Received | None:
        """Return the next message, or None when the other side is gone. Raises ProtocolError on anything else."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            body = await self._reader.readexactly(frame_length(header))
        except (asyncio.IncompleteReadError, OSError):  # OSError: reset, timed out, unreachable
            return None
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"not a message of this link: {error}") from error

    def close(self) -> None:
        self._writer.close()
