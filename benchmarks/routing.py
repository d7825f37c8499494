"""What a gateway's choice of a group is worth, ours against others', with real programs between client and groups.

Four groups as in routing_simulated.py: the simulated engine of one H200 with GLM-4.5-Air in FP8, its prefix cache
included, which the real engine is to get. Each is a server whose steps take their time by the clock, --speed times as
fast. Four real glm-nano would starve on the two cores that also carry client and gateway, and have no prefix cache
whose hits could be seen.

Two loads. Sessions: conversations of one to ten turns that begin with one of twelve system prompts. Hot: fewer of them,
and many single questions behind one system prompt of 8,000 tokens. Each gateway gets the same requests at the same
times; a turn comes never before its predecessor was answered.

hits: tokens of prompts found in caches, of all; ideal: what one group with an endless cache would have found, of the
same requests in the same order. load: tokens in flight at the fullest group against the mean. TTFT in seconds of the
load, by the client, gateway included. A request that was refused, broke off, or had no first token within 30 s of the
load has failed.

Round robin and random are vllm-router's. Ends with a JSON line a number. Exit status 1: a goal was missed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from gateways.client import Ask, Client, Line, Reply, no_garbage
from gateways.groups import BEGIN_PATH, SEEN_PATH, serve
from gateways.proxies import BACKEND_CORE, KEY, Command, free_port, ours, smg, start, vllm_router, why_not
from gateways.wire import MODEL
from simulated.choosers import GROUPS
from simulated.simulation import TOO_LATE_S
from simulated.workload import WARM_S, Turn, Workload, ideal

GOAL_HITS, GOAL_LOAD, GOAL_FAILED = 0.9, 1.3, 0.001
ROUTERS: dict[str, tuple[str, Command]] = {
    "ours": ("ours", ours),
    "round robin": ("vllm-router", partial(vllm_router, policy="round_robin")),
    "random": ("vllm-router", partial(vllm_router, policy="random")),
    "smg": ("smg", smg),
    "vllm-router": ("vllm-router", vllm_router),
}
"""By name: the program, and how it is started. The last two: cache-aware, as they are by default."""

BLIND = ("round robin", "random")


@dataclass(frozen=True)
class Result:
    """One gateway under one load, without the first minute. ttft_s: p50, p90, p99."""

    hits: float
    ideal: float
    load: float
    work: float
    ttft_s: tuple[float, ...]
    failed: float
    requests: int
    faults: tuple[str, ...]


@dataclass
class Player:
    """Plays a load against a port: each turn at its time, and after the turn before it."""

    workload: Workload
    port: int
    speed: float
    numbers: dict[int, int]  # of each turn, by its identity
    came: list[tuple[float, Turn, Reply]] = field(default_factory=list)  # seconds of the load, and what became of it

    def play(self) -> None:
        self._client, self._free = Client(self.port), list[Line]()
        self._turns: dict[Line, tuple[Turn, float]] = {}
        self._client.on_done = self._done
        with no_garbage():
            self._began_s = time.perf_counter()
            for session in self.workload.sessions:
                self._plan(session[0], session[0].at_s)
            self._client.run_until(self._began_s + self.workload.seconds / self.speed)
            now = time.perf_counter()
            for line, (turn, at_s) in self._turns.items():  # under way still
                assert line.reply is not None
                line.reply.first_s = line.reply.first_s or now
                self.came.append((at_s, turn, line.reply))
            self._client.close()

    def _plan(self, turn: Turn, at_s: float) -> None:
        self._client.at(self._began_s + at_s / self.speed, partial(self._send, turn))

    def _send(self, turn: Turn) -> None:
        line = self._free.pop() if self._free else self._client.connect()
        self._turns[line] = turn, (time.perf_counter() - self._began_s) * self.speed
        self._client.start(line, self._asked(turn))

    def _asked(self, turn: Turn) -> Ask:
        number = self.numbers[id(turn)]
        asked = {"model": MODEL, "stream": True, "max_tokens": turn.answer_tokens, "seed": number}
        body = json.dumps({**asked, "messages": turn.messages}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return Ask(head.encode() + body, turn.answer_tokens)

    def _done(self, line: Line, reply: Reply) -> None:
        turn, at_s = self._turns.pop(line)
        self.came.append((at_s, turn, reply))
        if line.sock.fileno() >= 0:
            self._free.append(line)
        session = self.workload.sessions[turn.session]
        place = next(place for place, each in enumerate(session) if each is turn)
        for after in session[place + 1 : place + 2]:
            now = (time.perf_counter() - self._began_s) * self.speed
            self._plan(after, max(after.at_s, now + 1.0))


def run(workload: Workload, command: Command, name: str, speed: float, folder: Path) -> Result:
    """Play a load against new groups behind a new gateway."""
    turns = [turn for session in workload.sessions for turn in session]
    ports = tuple(free_port() for _ in range(GROUPS))
    with some_groups(ports, turns, speed):
        running = start(name, command, ports, folder)
        try:
            time.sleep(1.0)  # each group is known, and heard
            for port in ports:
                _get(port, BEGIN_PATH)
            player = Player(workload, running.port, speed, {id(turn): number for number, turn in enumerate(turns)})
            player.play()
            seen = [json.loads(_get(port, SEEN_PATH)) for port in ports]
        finally:
            running.end()
    return result_of(seen, player.came, workload.seconds, speed)


def result_of(
    seen: list[dict[str, float]], came: list[tuple[float, Turn, Reply]], seconds: float, speed: float
) -> Result:
    """Return the numbers of a run: those of the groups, and those of the client."""
    judged = [reply for at_s, _, reply in came if WARM_S <= at_s <= seconds - TOO_LATE_S]
    waits = sorted(
        TOO_LATE_S if reply.fault or not reply.first_s else min(TOO_LATE_S, speed * reply.ttft_s) for reply in judged
    )
    loads, computed = [each["load"] for each in seen], [each["computed_tokens"] for each in seen]
    return Result(
        hits=sum(each["hit_tokens"] for each in seen) / max(1.0, sum(each["prompt_tokens"] for each in seen)),
        ideal=ideal(sorted(((at_s, turn) for at_s, turn, _ in came), key=lambda each: each[0])),
        load=GROUPS * max(loads) / max(1e-9, sum(loads)),
        work=GROUPS * max(computed) / max(1e-9, sum(computed)),
        ttft_s=tuple(waits[int(share * (len(waits) - 1))] for share in (0.5, 0.9, 0.99)),
        failed=sum(wait >= TOO_LATE_S for wait in waits) / len(waits),
        requests=len(judged),
        faults=tuple({reply.fault for _, _, reply in came if reply.fault}),
    )


@contextlib.contextmanager
def some_groups(ports: tuple[int, ...], turns: list[Turn], speed: float) -> Iterator[None]:
    forked = multiprocessing.get_context("fork")  # the load is there already, and is large
    processes: list[BaseProcess] = [
        forked.Process(target=serve, args=(port, turns, speed), daemon=True) for port in ports
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _get(port: int, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(line + b"HTTP/1.1\r\nhost: b\r\n\r\n")
        data = b""
        while True:
            data += sock.recv(2**16)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0] or 0)
            if body and len(body) >= length:
                return body


def workloads(seconds: float, seed: int) -> list[Workload]:
    """Return the two loads of routing_simulated.py."""
    return [
        Workload("sessions", seconds=seconds, sessions_per_s=1.2, hot_per_s=0.0, seed=seed),
        Workload("hot", seconds=seconds, sessions_per_s=0.8, hot_per_s=8.0, seed=seed),
    ]


def lines_of(load: str, results: dict[str, Result]) -> list[dict[str, object]]:
    """Return the lines of one load: ours beside all others."""
    own, blind = results["ours"], [results[name] for name in BLIND if name in results]
    best_s = min((each.ttft_s[1] for each in blind), default=float("inf"))
    metrics: dict[str, tuple[Callable[[Result], float], float | None, bool | None]] = {
        "prefix hits of the ideal": (lambda each: each.hits / each.ideal, GOAL_HITS, own.hits / own.ideal >= GOAL_HITS),
        "fullest group against the mean": (lambda each: each.load, GOAL_LOAD, own.load <= GOAL_LOAD),
        "seconds to first token, p50": (lambda each: each.ttft_s[0], None, None),
        "seconds to first token, p90": (lambda each: each.ttft_s[1], best_s, own.ttft_s[1] <= best_s),
        "seconds to first token, p99": (lambda each: each.ttft_s[2], None, None),
        "share that failed": (lambda each: each.failed, GOAL_FAILED, own.failed <= GOAL_FAILED),
    }
    return [
        {
            "bench": "routing",
            "metric": f"{load}: {metric}",
            "ours": round(value(own), 4),
            "peers": {name: round(value(each), 4) for name, each in results.items() if name != "ours"},
            "goal": None if goal is None else round(goal, 4),
            "met": met,
        }
        for metric, (value, goal, met) in metrics.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="of the load; the first minute is not counted")
    parser.add_argument("--speed", type=float, default=2.0, help="seconds of the load in one by the clock")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--routers", nargs="*", default=list(ROUTERS), choices=list(ROUTERS))
    parser.add_argument("--loads", nargs="*", default=["sessions", "hot"], choices=["sessions", "hot"])
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {BACKEND_CORE})
    lines = []
    for workload in workloads(arguments.seconds, arguments.seed):
        if workload.name not in arguments.loads:
            continue
        print(f"{workload.name}: {sum(map(len, workload.sessions))} requests")
        print("router         hits  of ideal   load   work   TTFT p50    p90    p99   failed  of requests", flush=True)
        results: dict[str, Result] = {}
        for name in arguments.routers:
            program, command = ROUTERS[name]
            if reason := why_not(program):
                print(f"{name} is left out: {reason}", flush=True)
                continue
            with tempfile.TemporaryDirectory() as folder:
                each = results[name] = run(workload, command, program, arguments.speed, Path(folder) / "router")
            waits = "".join(f"{wait:7.2f}" for wait in each.ttft_s)
            shares = f"{each.hits:.3f}  {each.hits / each.ideal:8.3f}  {each.load:5.2f}  {each.work:5.2f}"
            told = f"{each.failed:7.4f}  {each.requests:6d}  load {os.getloadavg()[0]:.1f}"
            print(f"{name:13}  {shares}    {waits}  {told} {each.faults[:2] or ''}", flush=True)
        if "ours" in results:
            lines += lines_of(workload.name, results)
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
