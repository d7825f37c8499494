"""A fake group: speaks OpenAI's chat over HTTP/1.1 at a fixed pace of tokens, in frames where a gateway asks for them.

One process, one thread, raw sockets: it must be much faster than what is measured before it. A request says by
`max_tokens` how many tokens it wants, and by `seed` how many milliseconds apart; 0: all at once. The first one comes at
once. GET /load streams what a worker pushes. Every other GET is answered with what routers look for before they start.
"""

import argparse
import gc
import heapq
import itertools
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field

from glm_edge.frames import FRAMES_TYPE, Close, Frame, Open, Tokens, encode

MODEL = "m"
TOKEN = "tok "
"""Text of every token: clients count it."""

LOAD_EVERY_S = 0.1
BACKLOG = 4096
_READ_BYTES = 2**18
_EVENT = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return b"data: " + _json({**_EVENT, "choices": [choice]}) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def _head(kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


FIRST = _event({"role": "assistant", "content": TOKEN})
NEXT = _event({"content": TOKEN})
LAST = _event({}, "length") + b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def whole(num_tokens: int) -> bytes:
    """Return the body of a reply that does not stream."""
    message = {"role": "assistant", "content": TOKEN * num_tokens}
    return _json(
        {
            **_EVENT,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": num_tokens, "total_tokens": 8 + num_tokens},
        }
    )


@dataclass
class Script:
    """The pieces of one kind of reply as they go over the wire: what opens it, each token, what ends it."""

    opening: bytes
    token: bytes
    closing: bytes


def plain_stream() -> Script:
    return Script(_head("text/event-stream; charset=utf-8") + _chunk(FIRST), _chunk(NEXT), _chunk(LAST) + END)


def framed(*, streams: bool, num_tokens: int) -> Script:
    """Return the same in frames, as worker/glm_worker/server/flights/framed.py writes them."""
    kind = "text/event-stream; charset=utf-8" if streams else "application/json"
    opened = Open(
        id="chatcmpl-bench",
        created=1_700_000_000,
        seeds=[7],
        status=200,
        headers=[("content-type", kind)],
        num_prompt_tokens=8,
        fingerprint="f" * 16,
    )
    state = b"\x01" if streams else b""

    def tokens(told: bytes) -> bytes:
        return _chunk(encode(Frame(Tokens(ids=[(0, [17])], state=state), told if streams else b"")))

    closed = Close(
        num_prompt_tokens=8,
        num_cached_tokens=0,
        num_reasoning_tokens=0,
        num_answer_tokens=num_tokens,
        reasons=["length"],
    )
    return Script(
        _head(FRAMES_TYPE) + _chunk(encode(Frame(opened))) + tokens(FIRST),
        tokens(NEXT),
        _chunk(encode(Frame(closed, LAST if streams else whole(num_tokens)))) + END,
    )


@dataclass(eq=False)
class _Client:
    """A connection. due: of the running reply, the next token's time. unsent: what the other side does not take yet."""

    sock: socket.socket
    read: bytearray = field(default_factory=bytearray)
    wanted: int = 0  # bytes of the request under way, once its head is here
    unsent: bytearray = field(default_factory=bytearray)
    script: Script | None = None
    left: int = 0
    gap_s: float = 0.0
    is_open: bool = True
    hears_load: bool = False


class Backend:
    """Use `serve` from one thread."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._due: list[tuple[float, int, _Client]] = []
        self._numbers = itertools.count()
        self._plain = plain_stream()
        self._framed: dict[tuple[bool, int], Script] = {}
        self._num_running = 0

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
                due_s, _, client = heapq.heappop(self._due)
                if client.is_open:
                    self._go_on(client, due_s)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[sock.fileno()] = _Client(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def _receive(self, client: _Client) -> None:
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
        while client.is_open and client.script is None and (request := self._request(client)) is not None:
            self._answer(client, request)

    def _request(self, client: _Client) -> bytes | None:
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

    def _answer(self, client: _Client, request: bytes) -> None:
        if request.startswith(b"GET /load "):
            client.hears_load = True
            self._send(client, _head("application/x-ndjson"))
            self._tell_load(client, time.perf_counter())
            return
        if not request.startswith(b"POST"):
            self._send_whole(client, _json({"status": "ok", "object": "list", "data": [{"id": MODEL}], "version": "0"}))
            return
        num_tokens, gap_s = max(1, _number(request, b'"max_tokens":')), _number(request, b'"seed":') / 1000
        streams = b'"stream":true' in request or b'"stream": true' in request
        head = request[:4096]
        if b"x-glm-frames: 1" in head:
            key = streams, num_tokens
            script = self._framed.get(key) or self._framed.setdefault(
                key, framed(streams=streams, num_tokens=num_tokens)
            )
        elif streams:
            script = self._plain
        else:
            self._send_whole(client, whole(num_tokens))
            return
        if gap_s == 0:
            self._send(client, script.opening + script.token * (num_tokens - 1) + script.closing)
            return
        client.script, client.left, client.gap_s = script, num_tokens - 1, gap_s
        self._num_running += 1
        self._send(client, script.opening)
        self._plan(client, time.perf_counter() + gap_s)

    def _go_on(self, client: _Client, due_s: float) -> None:
        if client.hears_load:
            self._tell_load(client, due_s)
            return
        script = client.script
        assert script is not None
        if client.left > 0:
            client.left -= 1
            if client.left > 0:
                self._send(client, script.token)
                self._plan(client, due_s + client.gap_s)
                return
            self._send(client, script.token + script.closing)
        else:
            self._send(client, script.closing)
        client.script = None
        self._num_running -= 1

    def _tell_load(self, client: _Client, due_s: float) -> None:
        load = {"ready": True, "leaving": False, "in_flight_tokens": 8 * self._num_running, "tokens_to_prefill": 0}
        more = {"oldest_waiting_s": 0.0, "kv_tokens": 1_000_000, "max_running": 1024, "prefill_tokens_per_s": 20_000.0}
        self._send(client, _chunk(_json({**load, **more, "num_running": self._num_running, "num_waiting": 0}) + b"\n"))
        self._plan(client, due_s + LOAD_EVERY_S)

    def _plan(self, client: _Client, at_s: float) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), client))

    def _send_whole(self, client: _Client, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._send(client, head + body)

    def _send(self, client: _Client, data: bytes) -> None:
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

    def _flush(self, client: _Client) -> None:
        data, client.unsent = bytes(client.unsent), bytearray()
        self._epoll.modify(client.sock, select.EPOLLIN)
        self._send(client, data)

    def _close(self, client: _Client) -> None:
        if not client.is_open:
            return
        client.is_open = False
        if client.script is not None:
            self._num_running -= 1
        self._epoll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.sock.close()


def _number(request: bytes, name: bytes) -> int:
    """Return the whole number of a field, wherever it stands; 0: it is not there."""
    at = request.find(name)
    if at < 0:
        return 0
    digits = request[at + len(name) : at + len(name) + 12].lstrip()
    return int(digits[: len(digits) - len(digits.lstrip(b"0123456789"))] or 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    backend = Backend(parser.parse_args().port)
    gc.disable()  # it makes no cycles, and a pause of it would be told as one of the proxy
    backend.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
