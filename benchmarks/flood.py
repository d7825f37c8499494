"""What a flood of bodies does to the streams of others, and to the server's memory.

`glm-worker serve` with the long-context model of models.py on one CPU rank of this machine. Some honest clients read
streams all the time, one chat after the other. Beside them another process floods: 16 MiB bodies on many connections
at once, 6 MB bodies that are read and tokenised before they can be refused, and slow ones, of which most
comes at once and then a kilobyte a second. Before, between and after come times without a flood, for a
machine is not the same for minutes.

Measured for each flood: gaps between two events of the honest streams, p99, against those without a flood right before
and after; the most memory of the server meanwhile; honest requests that failed. The promise is that the gaps stay below
twice those without, and memory within what bodies may take and what is made of the longest. The attackers run on the
same CPUs as server, rank and clients: told as well, without a goal, are the gaps beside processes that use as much CPU
time as the attackers did, and ask for nothing.

Refuses to run beside other load; --anyway runs all the same. Ends with a JSON line a number.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from engines.machine import Busy, wait_until_quiet
from recovery import GIVE_UP_S, Question, loopback_address, our_group, percentile

from models import CACHE, KINDS, make

GAP_GOAL = 2.0
MIB = 2**20
MEMORY_GOAL_BYTES = 512 * MIB  # more than before: 128 MiB of bodies, and what is made of three of them at once
LEFT_GOAL = 1.25
NUM_STREAMS = 4
SETTLE_S = 3.0
POLITE = 5
BURN_PERIOD_S = 0.01
FLOODS = ("16 MiB bodies", "6 MB bodies", "slow bodies", "all of them")
Json = dict[str, Any]


@dataclass
class Reader:
    """One honest client. at: when events came. num_failed: of its requests."""

    host: str
    model: str
    gaps_s: list[float] = field(default_factory=list)
    num_failed: int = 0

    async def run(self) -> None:
        body = {"model": self.model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        data = json.dumps({**body, "max_tokens": 1000, "ignore_eos": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        while True:
            reader, writer = await asyncio.open_connection(self.host, 8000, limit=2**22)
            writer.write(head + data)
            try:
                status = await reader.readuntil(b"\r\n\r\n")
                self.num_failed += b" 200 " not in status[:16]
                at = None
                while b"[DONE]" not in (event := await reader.readuntil(b"\n\n")):
                    now = time.perf_counter()
                    if at is not None:
                        self.gaps_s.append(now - at)
                    self.num_failed += b'"error"' in event
                    at = now
            except (asyncio.IncompleteReadError, ConnectionError):
                self.num_failed += 1
            finally:
                writer.close()


@dataclass(frozen=True)
class Seen:
    """Of a stretch of time. peak_bytes: resident memory of the server."""

    gaps_s: list[float]
    num_failed: int
    peak_bytes: int


async def watch(host: str, model: str, server: psutil.Process, seconds: float) -> Seen:
    """Read streams for so long."""
    readers = [Reader(host, model) for _ in range(NUM_STREAMS)]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    peak, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        peak = max(peak, server.memory_info().rss)
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return Seen(
        list(itertools.chain.from_iterable(reader.gaps_s[5:] for reader in readers)),
        sum(reader.num_failed for reader in readers),
        peak,
    )


@contextlib.contextmanager
def burning(share: float) -> Iterator[None]:
    """Have processes that use so many CPUs, as politely as an attacker, and say nothing to anybody."""
    num = math.ceil(share)
    command = [sys.executable, __file__, "--burn", str(share / max(1, num))]
    burners = [subprocess.Popen(command) for _ in range(num)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def burn(share: float) -> None:
    """Use this share of one CPU until killed."""
    os.nice(POLITE)
    while True:
        until = time.perf_counter() + share * BURN_PERIOD_S
        while time.perf_counter() < until:
            pass
        time.sleep((1 - share) * BURN_PERIOD_S)


@contextlib.contextmanager
def flooding(host: str, flood: str, num_connections: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, "--attack", flood, "--host", host, "--connections", str(num_connections)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        attacker.stdout.readline()  # it has begun
        yield attacker
    finally:
        attacker.kill()
        attacker.wait()


def attack(host: str, flood: str, num_connections: int) -> int:
    """Flood until killed."""
    os.nice(POLITE)  # what is measured is the server, not who sends
    kinds = FLOODS[:3] if flood == FLOODS[3] else (flood,)
    for number in range(num_connections):
        kind = kinds[number % len(kinds)]
        threading.Thread(target=_attacker, args=(host, kind), daemon=True).start()
    print("begun", flush=True)
    threading.Event().wait()
    return 0


def _attacker(host: str, kind: str) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, 8000), timeout=60) as sock:
            if kind == FLOODS[2]:
                _send_slowly(sock)
            else:
                sock.sendall(_wire(16 * MIB - 1024 if kind == FLOODS[0] else 6_000_000))
                sock.recv(4096)


def _wire(num_bytes: int) -> bytes:
    message = {"role": "user", "content": "12 + 30 is 42. " * ((num_bytes - 200) // 15)}
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": [message]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _send_slowly(sock: socket.socket) -> None:
    """Send all of a body but the end, and of that a little a second, until the server has enough of it."""
    wire = _wire(6_000_000)
    sock.sendall(wire[:4_000_000])
    for at in range(4_000_000, 5_900_000, 1000):
        sock.sendall(wire[at : at + 1000])
        time.sleep(1.0)


async def measure(host: str, model: str, server: psutil.Process, arguments: argparse.Namespace) -> list[Json]:
    lines = []
    await watch(host, model, server, SETTLE_S)
    for kind in FLOODS:
        with flooding(host, kind, 1):  # once, so that memory before is that of a server that has read large bodies
            await watch(host, model, server, SETTLE_S)
    await asyncio.sleep(SETTLE_S)
    at_first = server.memory_info().rss
    for kind in FLOODS:
        if arguments.only is not None and arguments.only not in kind:
            continue
        before = server.memory_info().rss
        quiet = await watch(host, model, server, arguments.seconds / 2)
        with flooding(host, kind, arguments.connections) as attacker:
            used_s = _cpu_s(attacker.pid)
            loud = await watch(host, model, server, arguments.seconds)
            share = min(2.0, (_cpu_s(attacker.pid) - used_s) / arguments.seconds)
        await asyncio.sleep(SETTLE_S)
        with burning(share):
            burnt = percentile((await watch(host, model, server, arguments.seconds / 2)).gaps_s, 99)
        await asyncio.sleep(SETTLE_S)
        after = await watch(host, model, server, arguments.seconds / 2)
        alone, beside = percentile([*quiet.gaps_s, *after.gaps_s], 99), percentile(loud.gaps_s, 99)
        num_failed = quiet.num_failed + loud.num_failed + after.num_failed
        print(
            f"{kind}: gaps p99 {beside * 1e3:.1f} ms of {len(loud.gaps_s)}, alone {alone * 1e3:.1f} ms, beside"
            f" {share:.2f} CPUs of work that asks nothing {burnt * 1e3:.1f} ms; memory"
            f" {before / MIB:.0f} MiB, {loud.peak_bytes / MIB:.0f} at most; {num_failed} honest requests failed",
            flush=True,
        )
        lines += [
            _line(f"itl_p99_s beside {kind}", beside, alone, GAP_GOAL, is_met=beside < GAP_GOAL * alone),
            _line(f"itl_p99_s beside {kind}, to CPU time as much as the attackers'", beside, burnt, None, is_met=None),
            _line(
                f"memory_bytes more at most, {kind}",
                loud.peak_bytes - before,
                before,
                MEMORY_GOAL_BYTES,
                is_met=loud.peak_bytes - before <= MEMORY_GOAL_BYTES,
            ),
            _line(f"honest requests that failed, {kind}", num_failed, 0, 0, is_met=num_failed == 0),
        ]
    await asyncio.sleep(SETTLE_S)
    left = server.memory_info().rss
    lines.append(_line("memory_bytes after all", left, at_first, LEFT_GOAL, is_met=left <= LEFT_GOAL * at_first))
    return lines


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _line(metric: str, ours: float, without: float, goal: float | None, *, is_met: bool | None) -> Json:
    return {
        "bench": "flood",
        "metric": metric,
        "ours": round(ours, 6),
        "peer": round(without, 6),  # the same without a flood
        "ratio": round(ours / without, 3) if without else None,
        "goal": goal,
        "met": is_met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each flood, and without one before and after")
    parser.add_argument("--connections", type=int, default=48, help="that flood at once")
    parser.add_argument("--only", help="a part of the names of floods")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; default: models.py makes it")
    parser.add_argument("--anyway", action="store_true", help="measure beside other work")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--burn", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--host", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack is not None:
        return attack(arguments.host, arguments.attack, arguments.connections)
    if arguments.burn is not None:
        burn(arguments.burn)
    if not arguments.anyway:
        try:
            wait_until_quiet()
        except Busy as busy:
            raise SystemExit(f"flood: {busy}") from busy
    model = arguments.model
    if model is None:
        model = CACHE / "long-context"
        make(KINDS["long-context"], model)
    question = Question(f"file://{model}", "cpu", "hello", "")
    host = loopback_address()
    with tempfile.TemporaryDirectory() as folder, our_group(question, [host], 1, Path(folder)) as group:
        if group.wait_for_answer("", GIVE_UP_S) is None:
            raise SystemExit("the group does not answer")
        name = httpx.get(f"http://{host}:8000/v1/models", trust_env=False).json()["data"][0]["id"]
        lines = asyncio.run(measure(host, name, group.victim("server"), arguments))
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
