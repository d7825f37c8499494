"""A fake group: speaks OpenAI's chat over HTTP/1.1 at a fixed pace of tokens, in frames where a gateway asks for them.

A request says by `max_tokens` how many tokens it wants, and by `seed` how many milliseconds apart; 0: all at once. The
first one comes at once. GET /load streams what a worker pushes. Every other GET is answered with what routers look for
before they start.
"""

import argparse
import gc
import sys
import time
from dataclasses import dataclass

from gateways.server import Client, Server, number_of, streams
from gateways.wire import (
    CHAT,
    COUNT,
    MODEL,
    NOT_THERE,
    Script,
    chunk,
    framed,
    head_of,
    json_of,
    plain_stream,
    tokenized,
    whole,
)

LOAD_EVERY_S = 0.1
KNOWN = {"status": "ok", "object": "list", "data": [{"id": MODEL}], "version": "0"}


@dataclass
class _Reply:
    """One that is under way. left: tokens that are to come."""

    client: Client
    script: Script
    left: int
    gap_s: float


class Backend(Server):
    """The fake group."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._plain = plain_stream()
        self._framed: dict[tuple[bool, int], Script] = {}
        self._num_running = 0

    def answer(self, client: Client, request: bytes) -> None:
        if request.startswith(b"GET /load "):
            self.send(client, head_of("application/x-ndjson"))
            self._tell_load(client, time.perf_counter())
            return
        if request.startswith(COUNT):
            self.send_whole(client, tokenized(request))
            return
        if not request.startswith(CHAT):
            self.send(client, NOT_THERE) if request.startswith(b"POST") else self.send_whole(client, json_of(KNOWN))
            return
        num_tokens, gap_s = max(1, number_of(request, b'"max_tokens":')), number_of(request, b'"seed":') / 1000
        is_stream = streams(request)
        if b"x-glm-frames: 1" in request[:4096]:
            key = is_stream, num_tokens
            script = self._framed.get(key) or framed(streams=is_stream, num_tokens=num_tokens)
            self._framed[key] = script
        elif is_stream:
            script = self._plain
        else:
            self.send_whole(client, whole(num_tokens))
            return
        if gap_s == 0:
            self.send(client, script.opening + script.first + script.token * (num_tokens - 1) + script.closing)
            return
        client.is_busy = True
        self._num_running += 1
        self.send(client, script.opening + script.first)
        self._plan_next(_Reply(client, script, num_tokens - 1, gap_s), time.perf_counter())

    def _plan_next(self, reply: _Reply, now: float) -> None:
        self.plan(now + reply.gap_s, lambda due_s: self._go_on(reply, due_s))

    def _go_on(self, reply: _Reply, due_s: float) -> None:
        script, reply.left = reply.script, reply.left - 1
        if reply.left > 0 and reply.client.is_open:
            self.send(reply.client, script.token)
            self._plan_next(reply, due_s)
            return
        self.send(reply.client, script.closing if reply.left < 0 else script.token + script.closing)
        self._num_running -= 1
        self.finish(reply.client)

    def _tell_load(self, client: Client, due_s: float) -> None:
        load = {"ready": True, "leaving": False, "in_flight_tokens": 8 * self._num_running, "tokens_to_prefill": 0}
        more = {"oldest_waiting_s": 0.0, "kv_tokens": 1_000_000, "max_running": 1024, "prefill_tokens_per_s": 20_000.0}
        self.send(client, chunk(json_of({**load, **more, "num_running": self._num_running, "num_waiting": 0}) + b"\n"))
        if client.is_open:
            self.plan(due_s + LOAD_EVERY_S, lambda next_s: self._tell_load(client, next_s))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    backend = Backend(parser.parse_args().port)
    gc.disable()  # it makes no cycles, and a pause of it would be told as one of the proxy
    backend.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
