"""A transport whose heads go out with the first bytes of their bodies, where those are there at once.

uvicorn writes a head and a body apart: two calls of the system, and two times that the other side wakes. Most often the
body is there a moment later, before the loop does anything else.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

_HEAD = b"HTTP/1."


class WholeHeads(asyncio.Transport):
    """Writes to another transport, in order. What looks like a head waits for the next write, or for the loop's next
    round; nothing else waits. Use it from one event loop.
    """

    def __init__(self, transport: asyncio.Transport, call_soon: Callable[[Callable[[], None]], object]) -> None:
        super().__init__()
        self._transport = transport
        self._call_soon = call_soon
        self._head: bytes = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data) if data else (head,))
        elif data[: len(_HEAD)] == _HEAD:
            self._head = bytes(data)
            self._call_soon(self._flush)
        else:
            self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._head = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
