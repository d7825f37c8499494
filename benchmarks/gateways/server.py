"""An HTTP/1.1 server in one thread on raw sockets, much faster than what is measured before it."""

import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BACKLOG = 4096
_READ_BYTES = 2**18

Due = Callable[[float], None]
"""Called at its time, with it."""


@dataclass(eq=False)
class Client:
    """A connection. wanted: bytes of the request under way. unsent: what the other side does not take yet.

    is_busy: its last request is not answered yet, so the next one waits.
    """

    sock: socket.socket
    read: bytearray = field(default_factory=bytearray)
    wanted: int = 0
    unsent: bytearray = field(default_factory=bytearray)
    is_busy: bool = False
    is_open: bool = True


class Server:
    """Subclasses say what is answered, in `answer`. `serve` from one thread."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, Client] = {}
        self._due: list[tuple[float, int, Due]] = []
        self._numbers = itertools.count()

    def answer(self, client: Client, request: bytes) -> None:
        """Answer a whole request, head and body, now or later."""
        raise NotImplementedError

    def gone(self, client: Client) -> None:
        """Take it that a client is gone."""

    def serve(self) -> None:
        while True:
            wait_s = -1.0 if not self._due else max(0.0, self._due[0][0] - time.perf_counter())
            for number, events in self._epoll.poll(wait_s):
                if number == self._listener.fileno():
                    self._accept()
                    continue
                client = self._clients[number]
                if events & select.EPOLLOUT:
                    self._flush(client)
                if events & ~select.EPOLLOUT and client.is_open:
                    self._receive(client)
            now = time.perf_counter()
            while self._due and self._due[0][0] <= now:
                due_s, _, call = heapq.heappop(self._due)
                call(due_s)

    def plan(self, at_s: float, call: Due) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), call))

    def finish(self, client: Client) -> None:
        """The request is answered: go on with what the client has sent meanwhile."""
        client.is_busy = False
        if client.read:
            self._answer_next(client)

    def send_whole(self, client: Client, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.send(client, head + body)

    def send(self, client: Client, data: bytes) -> None:
        if not client.is_open:
            return
        if client.unsent:
            client.unsent += data
            return
        try:
            sent = client.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(client)
            return
        if sent < len(data):
            client.unsent += data[sent:]
            self._epoll.modify(client.sock, select.EPOLLIN | select.EPOLLOUT)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[sock.fileno()] = Client(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def _receive(self, client: Client) -> None:
        try:
            data = client.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.read += data
        self._answer_next(client)

    def _answer_next(self, client: Client) -> None:
        while client.is_open and not client.is_busy and (request := self._request(client)) is not None:
            self.answer(client, request)

    def _request(self, client: Client) -> bytes | None:
        """Return the next whole request."""
        read = client.read
        if not client.wanted:
            end = read.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(read[:end]).lower()
            at = head.find(b"content-length:")
            if at >= 0:
                client.wanted = end + 4 + int(head[at + 15 :].split(b"\r", 1)[0])
            elif b"transfer-encoding: chunked" in head:
                last = read.find(b"\r\n0\r\n\r\n", end)
                if last < 0:
                    return None
                client.wanted = last + 7
            else:
                client.wanted = end + 4
        if len(read) < client.wanted:
            return None
        request = bytes(read[: client.wanted])
        del read[: client.wanted]
        client.wanted = 0
        return request

    def _flush(self, client: Client) -> None:
        data, client.unsent = bytes(client.unsent), bytearray()
        self._epoll.modify(client.sock, select.EPOLLIN)
        self.send(client, data)

    def _close(self, client: Client) -> None:
        if not client.is_open:
            return
        client.is_open = False
        self._epoll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.sock.close()
        self.gone(client)


def number_of(request: bytes, name: bytes) -> int:
    """Return the whole number of a field, wherever it stands; 0: it is not there."""
    at = request.find(name)
    if at < 0:
        return 0
    digits = request[at + len(name) : at + len(name) + 12].lstrip()
    return int(digits[: len(digits) - len(digits.lstrip(b"0123456789"))] or 0)


def streams(request: bytes) -> bool:
    return b'"stream":true' in request or b'"stream": true' in request
