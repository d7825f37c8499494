"""The client: many connections in one thread over epoll, and the time of each reply's first token and end.

It reads no more of a reply than it must: where the head ends, how many tokens came, and whether it is complete.
"""

import gc
import heapq
import itertools
import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateways.wire import END, MODEL, TOKEN

_READ_BYTES = 2**18
_TOKEN = TOKEN.encode()
GIVE_UP_S = 30.0


@dataclass(frozen=True)
class Ask:
    """A request as it goes over the wire, and the number of tokens that its reply must have."""

    wire: bytes
    num_tokens: int


def ask(key: str, *, num_tokens: int, gap_ms: int = 0, streams: bool = True, text: str = "Count with me.") -> Ask:
    """key: of the caller. gap_ms: between two tokens."""
    body = json.dumps(
        {
            "model": MODEL,
            "max_tokens": num_tokens,
            "seed": gap_ms,
            "stream": streams,
            "messages": [{"role": "user", "content": text}],
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\naccept: */*\r\nuser-agent: bench\r\n"
        f"content-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return Ask(head.encode() + body, num_tokens)


@dataclass
class Reply:
    """Times are seconds of perf_counter. fault: why it is no good; empty: it is."""

    sent_s: float
    first_s: float = 0.0
    end_s: float = 0.0
    num_tokens: int = 0
    fault: str = ""

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.sent_s


@dataclass(eq=False)
class Line:
    """A connection with a request under way, or none."""

    sock: socket.socket
    reply: Reply | None = None
    asked: Ask | None = None
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    head: bytes = b""
    tail: bytes = b""
    body_left: int | None = None  # bytes; None: it is chunked, or the head is not here yet
    is_in_body: bool = False


Done = Callable[[Line, Reply], None]


def nothing(line: Line, reply: Reply) -> None:
    """Do nothing with a reply."""
    del line, reply


class Client:
    """Use it as a context. on_done: told of each reply that has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.num_tokens = 0
        self.num_running = 0
        self.on_done: Done = nothing

    def connect(self) -> Line:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=GIVE_UP_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        line = self._lines[sock.fileno()] = Line(sock)
        self._epoll.register(sock, select.EPOLLIN)
        return line

    def start(self, line: Line, asked: Ask) -> None:
        """Send a request on a line that has none under way."""
        line.asked, line.head, line.tail, line.body_left, line.is_in_body = asked, b"", b"", None, False
        line.reply = Reply(time.perf_counter())
        self.num_running += 1
        try:
            sent = line.sock.send(asked.wire)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(line, f"sending failed: {error.strerror}")
            return
        if sent < len(asked.wire):
            line.unsent = memoryview(asked.wire)[sent:]
            self._epoll.modify(line.sock, select.EPOLLIN | select.EPOLLOUT)

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when_s, next(self._numbers), call))

    def run_until(self, end_s: float, *, while_running: bool = False) -> None:
        """Work until then; while_running: or until no request is under way and no timer waits."""
        while (now := time.perf_counter()) < end_s:
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            if while_running and not self.num_running and not self._timers:
                return
            until_s = min(end_s, self._timers[0][0] if self._timers else end_s)
            for number, events in self._epoll.poll(max(0.0, until_s - time.perf_counter())):
                line = self._lines.get(number)
                if line is None:
                    continue
                if events & select.EPOLLOUT:
                    self._send_on(line)
                if events & ~select.EPOLLOUT:
                    self._receive(line)

    def close(self) -> None:
        for line in self._lines.values():
            line.sock.close()
        self._lines.clear()
        self._epoll.close()

    def renew(self, line: Line) -> Line:
        """Return a line that can be used: this one, or another where it was closed."""
        return line if line.sock.fileno() >= 0 else self.connect()

    def _send_on(self, line: Line) -> None:
        try:
            line.unsent = line.unsent[line.sock.send(line.unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(line, f"sending failed: {error.strerror}")
            return
        if not line.unsent:
            self._epoll.modify(line.sock, select.EPOLLIN)

    def _receive(self, line: Line) -> None:
        try:
            data = line.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        reply = line.reply
        if not data or reply is None:
            if reply is not None:
                self._end(line, "the connection was closed")
            self._drop(line)
            return
        if not line.is_in_body:
            body = self._body_of(line, reply, data)
            if body is None:
                return
            data = body
        if line.body_left is not None:
            line.body_left -= len(data)
        seen = line.tail + data
        count = seen.count(_TOKEN)
        if count:
            reply.first_s = reply.first_s or time.perf_counter()
            reply.num_tokens += count
            self.num_tokens += count
        # What is kept is the beginning of a token, or of the end, that may be cut; what was counted is not kept.
        line.tail = seen[-(len(END) - 1) :].replace(_TOKEN, b"")
        if line.body_left == 0 or (line.body_left is None and seen.endswith(END)):
            self._end(line, "")

    def _body_of(self, line: Line, reply: Reply, data: bytes) -> bytes | None:
        """Return what has come of the body with the end of the head; None: the head is not here yet."""
        line.head += data
        end = line.head.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, data = line.head[:end].lower(), line.head[end + 4 :]
        line.is_in_body = True
        if not head.startswith(b"http/1.1 200"):
            reply.fault = (head[:40] + b" " + data[:200]).decode("latin-1")
        at = head.find(b"content-length:")
        if at >= 0:
            line.body_left = int(head[at + 15 :].split(b"\r", 1)[0])
        return data

    def _end(self, line: Line, fault: str) -> None:
        reply, asked = line.reply, line.asked
        assert reply is not None
        assert asked is not None
        reply.end_s = time.perf_counter()
        reply.fault = reply.fault or fault
        if not reply.fault and reply.num_tokens != asked.num_tokens:
            reply.fault = f"{reply.num_tokens} tokens came instead of {asked.num_tokens}"
        line.reply = None
        self.num_running -= 1
        if fault:
            self._drop(line)
        self.on_done(line, reply)

    def _drop(self, line: Line) -> None:
        number = line.sock.fileno()
        if number >= 0:
            self._epoll.unregister(line.sock)
            del self._lines[number]
            line.sock.close()


@dataclass(frozen=True)
class Seen:
    """What came in a window. replies: those that ended in it. Seconds are by the clock, cpu_s of this process."""

    replies: list[Reply]
    num_tokens: int
    seconds: float
    cpu_s: float

    @property
    def good(self) -> list[Reply]:
        return [reply for reply in self.replies if not reply.fault]

    @property
    def faults(self) -> list[str]:
        return [reply.fault for reply in self.replies if reply.fault]

    @property
    def ttfts_s(self) -> list[float]:
        return sorted(reply.ttft_s for reply in self.good)


@contextmanager
def no_garbage() -> Iterator[None]:
    """Collect no garbage meanwhile: a pause of ours would be told as one of the proxy."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


Mark = Callable[[], None]


def closed_loop(
    port: int,
    asked: Ask,
    *,
    num_streams: int,
    warm_s: float,
    seconds: float,
    spread_s: float = 0.0,
    mark: Mark = lambda: None,
) -> Seen:
    """Keep so many requests under way: the next one when one has ended. mark: called as the window begins.

    spread_s: over how long the first ones are spread, so that not all of them end at once.
    """
    client = Client(port)
    found: list[Reply] = []

    def done(line: Line, reply: Reply) -> None:
        found.append(reply)
        if reply.fault:  # a proxy that refuses is not to be drowned
            client.at(time.perf_counter() + 0.05, lambda: client.start(client.renew(line), asked))
        else:
            client.start(client.renew(line), asked)

    with no_garbage():
        lines = [client.connect() for _ in range(num_streams)]
        client.on_done = done
        began_s = time.perf_counter()
        for place, line in enumerate(lines):
            client.at(began_s + spread_s * place / num_streams, lambda line=line: client.start(line, asked))  # type: ignore[misc]
        client.run_until(began_s + warm_s)
        found.clear()
        num_tokens, cpu_s, at_s = client.num_tokens, time.process_time(), time.perf_counter()
        mark()
        client.run_until(at_s + seconds)
        took_s = time.perf_counter() - at_s
        seen = Seen(list(found), client.num_tokens - num_tokens, took_s, time.process_time() - cpu_s)
        client.on_done = nothing
        client.close()
    return seen


def open_loop(port: int, asked: Ask, *, rate: float, seconds: float, seed: int) -> Seen:
    """Send requests at random times, so many a second, whatever becomes of those before; wait for all of them."""
    client = Client(port)
    found: list[Reply] = []
    free = [client.connect() for _ in range(8)]
    dice = random.Random(seed)

    def done(line: Line, reply: Reply) -> None:
        found.append(reply)
        if line.sock.fileno() >= 0:
            free.append(line)

    def send() -> None:
        client.start(free.pop() if free else client.connect(), asked)

    client.on_done = done
    with no_garbage():
        began_s = at_s = time.perf_counter()
        while (at_s := at_s + dice.expovariate(rate)) < began_s + seconds:
            client.at(at_s, send)
        cpu_s = time.process_time()
        client.run_until(began_s + seconds + GIVE_UP_S, while_running=True)
        seen = Seen(found, client.num_tokens, time.perf_counter() - began_s, time.process_time() - cpu_s)
        client.close()
    return seen


def at_once(port: int, asked: Ask, *, count: int) -> Seen:
    """Send so many requests in one moment, each on a connection that is open, and wait for all of them."""
    client = Client(port)
    found: list[Reply] = []
    client.on_done = lambda _, reply: found.append(reply)
    lines = [client.connect() for _ in range(count)]
    client.run_until(time.perf_counter() + 0.2)
    with no_garbage():
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for line in lines:
            client.start(line, asked)
        client.run_until(began_s + GIVE_UP_S, while_running=True)
        seen = Seen(found, client.num_tokens, time.perf_counter() - began_s, time.process_time() - cpu_s)
        client.close()
    return seen
