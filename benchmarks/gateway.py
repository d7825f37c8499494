"""What a gateway adds, ours and four others, against nothing between: in one run, with one client and one fake group.

Client and group share one core, the gateway has the other to itself; those not measured are stopped meanwhile. Every
measure comes in rounds, each gateway in turn, and what is told is the median of the rounds.

- requests/s: replies of 16 tokens that do not stream, 64 at once.
- added TTFT: less the bare one of the same round, p50 and p99, with 1, 64 and 512 streams of 32 tokens, 50 ms apart.
  A new one begins where one has ended, so the gateway is busy with tokens meanwhile.
- token events/s: 512 streams whose group says a token each 10 ms, 51,200 events a second in all, more than any Python
  carries; and events by second of the gateway's CPU at 512 streams of the measure before.
- RSS at these 512 streams; and of ours in a minute of 64 streams of short replies, last third against the first.
- prompts of 220 KB: as many as it takes (16 at once), then at random times at half of that, then 200 in one moment.

core 0: how busy client and group are: below 1 the gateway is what limits. nginx does not read bodies, asks for no key
and counts nothing: it is the limit. Ours does all of that, and its group answers in frames.

Ends with a JSON line a number. Exit status 1: a goal was missed. Needs two cores that do nothing else: the load at the
begin of each round is told, and above 3 the times say more of the machine than of any gateway.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from gateways.client import Ask, Seen, ask, at_once, closed_loop, open_loop
from gateways.proxies import BACKEND_CORE, KEY, PROXIES, Running, free_port, start, start_backend, why_not

GOALS = {
    "added TTFT p50 at 64 streams, ms": 1.0,
    "added TTFT p99 at 64 streams, ms": 5.0,
    "220 KB, half of capacity: added TTFT p50, ms": 50.0,
    "220 KB, 200 at once: added TTFT p50, ms": 50.0,
}
RATE_GOAL = 10.0  # times LiteLLM's
FLAT_GOAL = 1.1
TEXT_220_KB = ("The quick brown fox jumps over the lazy dog; 12 + 30 = 42, said he. " * 3400)[:220_000]
SHORT, WHOLE, FAST, LONG = (
    ask(KEY, num_tokens=8, gap_ms=5),
    ask(KEY, num_tokens=16, streams=False),
    ask(KEY, num_tokens=128, gap_ms=10),
    ask(KEY, num_tokens=32, gap_ms=50),
)
BIG = ask(KEY, num_tokens=4, text=TEXT_220_KB)
TINY = ask(KEY, num_tokens=4)

Numbers = dict[str, float]


@dataclass
class Table:
    """Numbers of each gateway by metric, one a round."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    faults: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, name: str, numbers: Numbers) -> None:
        for metric, value in numbers.items():
            if math.isnan(value):  # no reply was good
                continue
            self.rounds.setdefault(metric, {}).setdefault(name, []).append(value)

    def of(self, metric: str, name: str) -> float | None:
        found = self.rounds.get(metric, {}).get(name)
        return statistics.median(found) if found else None


@dataclass
class Bench:
    """bare: the backend itself. scale: of all durations."""

    bare: Running
    backend: psutil.Process
    scale: float
    table: Table = field(default_factory=Table)

    def window(
        self, running: Running, asked: Ask, streams: int, *, seconds: float, warm_s: float, spread_s: float
    ) -> tuple[Seen, Numbers]:
        """Return what came in a window, and what it took: CPU of both sides, memory."""
        before: list[float] = []

        def mark() -> None:
            before[:] = [self._cpu_s(), running.cpu_s()]

        seen = closed_loop(
            running.port, asked, num_streams=streams, seconds=seconds, warm_s=warm_s, spread_s=spread_s, mark=mark
        )
        core = (self._cpu_s() - before[0] + seen.cpu_s) / seen.seconds
        self.note(running, seen)
        return seen, {"core 0": core, "proxy_cpu_s": running.cpu_s() - before[1], "rss": float(running.rss_bytes())}

    def note(self, running: Running, seen: Seen) -> None:
        for fault in seen.faults:
            known = self.table.faults.setdefault(running.name, {})
            known[fault[:160]] = known.get(fault[:160], 0) + 1

    def _cpu_s(self) -> float:
        times = self.backend.cpu_times()
        return times.user + times.system

    def rate(self, running: Running) -> None:
        seen, took = self.window(running, WHOLE, 64, seconds=4 * self.scale, warm_s=1, spread_s=0)
        self.table.add(
            running.name, {"requests/s": len(seen.good) / seen.seconds, "requests/s: core 0 busy": took["core 0"]}
        )

    def streams(self, running: Running, count: int, bare: Seen | None) -> Seen:
        asked, warm_s, spread_s = (SHORT, 0.5, 0.0) if count == 1 else (LONG, 2.5, 1.6)
        seconds = (6 if count == 1 else 10) * self.scale
        seen, took = self.window(running, asked, count, seconds=seconds, warm_s=warm_s, spread_s=spread_s)
        metric = f"at {count} streams, ms" if count > 1 else "at 1 stream, ms"
        for percent in (50, 99):
            value = _ms(seen, percent)
            numbers = {f"TTFT p{percent} {metric}": value}
            if bare is not None:
                numbers[f"added TTFT p{percent} {metric}"] = value - _ms(bare, percent)
            self.table.add(running.name, numbers)
        if count == 512 and bare is not None:
            per_s = seen.num_tokens / took["proxy_cpu_s"] if took["proxy_cpu_s"] else 0.0
            busy = took["proxy_cpu_s"] / seen.seconds
            more = {
                "RSS at 512 streams, MB": took["rss"] / 1e6,
                "token events by second of CPU": per_s,
                "at 512 streams: CPU busy": busy,
            }
            self.table.add(running.name, more)
        return seen

    def tokens(self, running: Running) -> None:
        seen, took = self.window(running, FAST, 512, seconds=5 * self.scale, warm_s=2.0, spread_s=1.3)
        self.table.add(
            running.name,
            {"token events/s": seen.num_tokens / seen.seconds, "token events/s: core 0 busy": took["core 0"]},
        )

    def big(self, running: Running, round_number: int) -> None:
        seen, _ = self.window(running, BIG, 16, seconds=3 * self.scale, warm_s=1, spread_s=0)
        capacity = len(seen.good) / seen.seconds
        numbers = {"220 KB: requests/s": capacity}
        if running is not self.bare and capacity:
            seconds = 5 * self.scale
            bare = open_loop(self.bare.port, BIG, rate=capacity / 2, seconds=seconds, seed=round_number)
            seen = open_loop(running.port, BIG, rate=capacity / 2, seconds=seconds, seed=round_number)
            self.note(running, seen)
            numbers |= _added("220 KB, half of capacity", seen, bare)
            bare = at_once(self.bare.port, BIG, count=200)
            seen = at_once(running.port, BIG, count=200)
            self.note(running, seen)
            numbers |= _added("220 KB, 200 at once", seen, bare)
        self.table.add(running.name, numbers)


def _added(what: str, seen: Seen, bare: Seen) -> Numbers:
    return {f"{what}: added TTFT p{percent}, ms": _ms(seen, percent) - _ms(bare, percent) for percent in (50, 99)}


def _ms(seen: Seen, percent: float) -> float:
    found = seen.ttfts_s
    return 1e3 * found[min(len(found) - 1, int(len(found) * percent / 100))] if found else float("nan")


def flatness(running: Running, seconds: float) -> tuple[float, float]:
    """Return the mean RSS in bytes of the first and the last third of a run of short streams."""
    found: list[int] = []
    for _ in range(30):
        closed_loop(running.port, TINY, num_streams=64, warm_s=0.0, seconds=seconds / 30)
        found.append(running.rss_bytes())
    return statistics.fmean(found[:10]), statistics.fmean(found[20:])


def measure(bench: Bench, proxies: Sequence[Running], rounds: int, only: Sequence[str]) -> None:
    bare = bench.bare
    for number in range(rounds):
        load = os.getloadavg()[0]
        print(f"round {number + 1} of {rounds}, load {load:.2f}", flush=True)
        if "rate" in only:
            in_turn(bench.rate, [bare, *proxies])
        for count in (1, 64, 512):
            if f"ttft{count}" in only:
                alone = bench.streams(bare, count, None)
                in_turn(lambda each, count=count, alone=alone: bench.streams(each, count, alone), proxies)  # type: ignore[misc]
        if "tokens" in only:
            in_turn(bench.tokens, [bare, *proxies])
        if "big" in only:
            in_turn(lambda each, number=number: bench.big(each, number), [bare, *proxies])  # type: ignore[misc]


def in_turn(work: Callable[[Running], object], runnings: Sequence[Running]) -> None:
    for each in runnings:
        with each.going():
            work(each)


def lines_of(table: Table, names: Sequence[str], flat: tuple[float, float] | None) -> list[dict[str, object]]:
    """Return the JSON lines: ours, the peers' numbers, and whether a goal was met."""
    lines = []
    for metric in table.rounds:
        ours = table.of(metric, "ours")
        if ours is None:
            continue
        peers = {name: _short(table.of(metric, name)) for name in names if name != "ours"}
        goal, met, ratio = GOALS.get(metric), None, None
        if goal is not None:
            met = ours <= goal
        litellm = table.of(metric, "litellm")
        if litellm:
            ratio = round(ours / litellm, 3)
        if metric == "requests/s" and litellm:
            goal, met = RATE_GOAL * litellm, ours >= RATE_GOAL * litellm
        lines.append(_line(metric, ours, peers, ratio, goal, met))
    if flat is not None:
        ratio = flat[1] / flat[0]
        peers = {"first third": round(flat[0] / 1e6, 2)}
        lines.append(
            _line(
                "RSS of the last third of a run, MB",
                flat[1] / 1e6,
                peers,
                ratio,
                flat[0] * FLAT_GOAL / 1e6,
                ratio <= FLAT_GOAL,
            )
        )
    return lines


def _line(
    metric: str, ours: float, peers: object, ratio: float | None, goal: float | None, met: bool | None
) -> dict[str, object]:
    return {
        "bench": "gateway",
        "metric": metric,
        "ours": _short(ours),
        "peers": peers,
        "ratio": ratio,
        "goal": _short(goal),
        "met": met,
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of all durations")
    parser.add_argument("--proxies", nargs="*", default=list(PROXIES), choices=list(PROXIES))
    measures = ["rate", "ttft1", "ttft64", "ttft512", "tokens", "big", "flat"]
    parser.add_argument("--only", nargs="*", default=measures, choices=measures)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {BACKEND_CORE})
    names = []
    for name in arguments.proxies:
        reason = why_not(name)
        if reason:
            print(f"{name} is left out: {reason}", flush=True)
        else:
            names.append(name)
    runnings: list[Running] = []
    flat = None
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        backend = start_backend(port)
        bench = Bench(Running("bare", port, None), backend, arguments.scale)
        try:
            for name in names:
                began_s = time.monotonic()
                runnings.append(start(name, PROXIES[name], (port,), Path(folder) / name))
                runnings[-1].stop()
                print(f"{name} answers after {time.monotonic() - began_s:.1f} s", flush=True)
            measure(bench, runnings, arguments.rounds, arguments.only)
            own = next((each for each in runnings if each.name == "ours"), None)
            if own is not None and "flat" in arguments.only:
                with own.going():
                    flat = flatness(own, 60 * arguments.scale)
        finally:
            for each in runnings:
                each.end()
            backend.kill()
    for name, faults in bench.table.faults.items():
        for fault, count in faults.items():
            print(f"{name}: {count} replies were no good: {fault!r}", flush=True)
    lines = lines_of(bench.table, ["bare", *names], flat)
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
