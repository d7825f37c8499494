"""Groups that compute nothing, and take as long for it as a real one: the simulated engine behind a real server.

Each is a process with the engine of simulated/engine.py, whose steps take their time by the clock, divided by `speed`.
A request says by `seed` which turn of the load it is, so the engine knows which blocks its prompt has. What groups have
seen is told at GET /seen.
"""

import gc
import json
import statistics
import time
from dataclasses import dataclass, field

from gateways.backend import KNOWN
from gateways.server import Client, Server, number_of
from gateways.wire import (
    CHAT,
    COUNT,
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
from simulated.engine import Engine, Flight
from simulated.simulation import PUSH_S
from simulated.workload import WARM_S, Turn

from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8

BEGIN_PATH, SEEN_PATH = b"GET /begin ", b"GET /seen "


@dataclass
class _Reply:
    """How far a flight's client has been told. Kept as the flight's handle."""

    client: Client
    script: Script
    num_told: int = 0


@dataclass
class Seen:
    """Of one group, without what came while caches were empty. loads: tokens in flight, ten times a second."""

    hit_tokens: int = 0
    prompt_tokens: int = 0
    requests: int = 0
    loads: list[int] = field(default_factory=list)
    computed_before: int = 0

    def told(self, engine: Engine) -> dict[str, float]:
        return {
            "hit_tokens": self.hit_tokens,
            "prompt_tokens": self.prompt_tokens,
            "requests": self.requests,
            "load": statistics.fmean(self.loads or [0]),
            "computed_tokens": engine.computed_tokens - self.computed_before,
        }


class SimulatedGroup(Server):
    """turns: of the load, by their number. speed: how many seconds of the engine pass in one by the clock."""

    def __init__(self, port: int, turns: list[Turn], speed: float) -> None:
        super().__init__(port)
        self._turns, self._speed = turns, speed
        self._engine, self._seen = Engine(), Seen()
        self._began_s: float | None = None  # of the run, by the clock
        self._plain = plain_stream()

    def answer(self, client: Client, request: bytes) -> None:
        if request.startswith(b"GET /load "):
            self.send(client, head_of("application/x-ndjson"))
            self._tell_load(client, time.perf_counter())
        elif request.startswith(BEGIN_PATH):
            self._began_s = time.perf_counter()
            self._sample(self._began_s)
            self.send_whole(client, b"{}")
        elif request.startswith(SEEN_PATH):
            self.send_whole(client, json_of(self._seen.told(self._engine)))
        elif request.startswith(COUNT):
            self.send_whole(client, tokenized(request))
        elif request.startswith(b"POST") and not request.startswith(CHAT):
            self.send(client, NOT_THERE)
        elif not request.startswith(b"POST"):
            self.send_whole(client, json_of(KNOWN))
        elif self._began_s is None:
            self._answer_first(client, request)
        else:
            self._take(client, request)

    def gone(self, client: Client) -> None:
        """What a client that is gone has asked is computed all the same: none of this load goes early."""

    def _answer_first(self, client: Client, request: bytes) -> None:
        """Answer the question by which is seen whether a gateway is there."""
        if b"x-glm-frames: 1" in request[:4096]:
            script = framed(streams=False, num_tokens=1)
            self.send(client, script.opening + script.first + script.closing)
        else:
            self.send_whole(client, whole(1))

    def _take(self, client: Client, request: bytes) -> None:
        turn = self._turns[number_of(request, b'"seed":')]
        is_framed = b"x-glm-frames: 1" in request[:4096]
        script = self._plain
        if is_framed:
            script = framed(streams=True, num_tokens=turn.answer_tokens, num_prompt_tokens=turn.prompt_tokens)
        client.is_busy = True
        if is_framed:  # a worker says at once that it has admitted a request
            self.send(client, script.opening)
        flight = Flight(turn, self._now(), _Reply(client, script))
        self._engine.waiting.append(flight)
        if not self._engine.is_busy:
            self._go_on(time.perf_counter())

    def _go_on(self, now: float) -> None:
        seconds = self._engine.plan()
        if seconds is not None:
            self.plan(now + seconds / self._speed, self._step)

    def _step(self, due_s: float) -> None:
        engine = self._engine
        _, done = engine.finish(self._now(due_s))
        for flight in [*engine.running, *done]:
            reply = flight.handle
            assert isinstance(reply, _Reply)
            new = flight.generated - reply.num_told
            if new > 0:
                self._tell(reply, new, is_last=flight.generated >= flight.turn.answer_tokens)
                if reply.num_told == new:
                    self._count(flight)
        self._go_on(max(due_s, time.perf_counter() - 0.05))

    def _tell(self, reply: _Reply, new: int, *, is_last: bool) -> None:
        script, data = reply.script, b""
        if reply.num_told == 0:
            data = script.first if script is not self._plain else script.opening + script.first
            new -= 1
            reply.num_told = 1
        data += script.token * new
        reply.num_told += new
        self.send(reply.client, data + script.closing if is_last else data)
        if is_last:
            self.finish(reply.client)

    def _count(self, flight: Flight) -> None:
        if flight.came_s < WARM_S:
            return
        self._seen.requests += 1
        self._seen.hit_tokens += flight.hits or 0
        self._seen.prompt_tokens += flight.turn.prompt_tokens

    def _now(self, at_s: float | None = None) -> float:
        """Return the seconds of the load that have passed."""
        assert self._began_s is not None
        return ((time.perf_counter() if at_s is None else at_s) - self._began_s) * self._speed

    def _sample(self, due_s: float) -> None:
        if self._now(due_s) < WARM_S:
            self._seen.computed_before = self._engine.computed_tokens
        else:
            self._seen.loads.append(self._engine.in_flight_tokens)
        self.plan(due_s + PUSH_S / self._speed, self._sample)

    def _tell_load(self, client: Client, due_s: float) -> None:
        engine, waiting = self._engine, self._engine.waiting
        oldest_s = max((self._now() - flight.came_s for flight in waiting if flight.hits is None), default=0.0)
        load = {
            "ready": True,
            "leaving": False,
            "in_flight_tokens": engine.in_flight_tokens,
            "tokens_to_prefill": engine.tokens_to_prefill,
            "oldest_waiting_s": oldest_s / self._speed,
            "kv_tokens": H200_AIR_FP8.kv_tokens,
            "max_running": H200_AIR_FP8.max_num_seqs,
            "num_running": len(engine.running),
            "num_waiting": len(waiting),
        }
        if engine.prefill_busy_s:
            load["prefill_tokens_per_s"] = self._speed * engine.measured_tokens / engine.prefill_busy_s
        self.send(client, chunk(json.dumps(load).encode() + b"\n"))
        if client.is_open:
            self.plan(due_s + 0.1, lambda next_s: self._tell_load(client, next_s))


def serve(port: int, turns: list[Turn], speed: float) -> None:
    """Be a group, in a process of its own."""
    group = SimulatedGroup(port, turns, speed)
    gc.freeze()
    group.serve()
