"""How far the simulated group is from the real one.

glm-nano on one CPU rank of this machine. `glm-worker calibrate` measures it; then `glm-worker serve`, with the same
settings, gets requests at random moments (Poisson, seeded), streamed by a client in another process that never waits
for an answer before it asks again. The prompts have 64 to 1,600 tokens, the answers 8 to 32: so the engine has the most
to do, and on a machine of two cores the server and the client leave it one. The same requests, at the moments at which
they were really sent, then go through the simulated group with the calibration taken just before.

Three runs a seed: below, at and past the knee. A backlog, many requests at once, goes to the real group before and
after them. What it takes there against what it takes in the simulation is the pace of the machine, and with it the rate
is known that the real group can carry for long. The runs get 0.5, 0.85 and 1.2 of that: at 0.85 the P95 of TTFT leaves
what it is without a queue. A queue multiplies what goes in: there, one per cent of the pace of the steps is seven of
the wait, and other arrivals are another wait. So each number is the median over the seeds, and all are shown.

TTFT is from sending to the first piece of text; ITL is a request's mean. Ends with a JSON line for each number: the
relative error of the simulator, |simulated - real| / real. The goal is for the p95 of TTFT; the others are shown.
pace is that of the backlogs around a run. Busy time cannot tell it near the knee: an engine that is slower is as busy,
with more requests in a step. On a machine as quiet as while it was calibrated it is near 1. Far from it something else
had the cores, and the error is the machine's.
at_pace is the error of a simulation whose steps take that much longer: what would be left if the calibration had seen
the same machine. cpu_share is the processor time of the rank against that of its steps: below 1 it waited for a core.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx
import psutil
from recovery import loopback_address, percentile
from tokenizers import Tokenizer

from glm_operator.autoscale.simulate.model.calibration import Calibration, read_calibration
from glm_operator.autoscale.simulate.model.group import Group, Request
from glm_operator.autoscale.simulate.trace import Arrival

NANO = Path(__file__).resolve().parents[1] / "worker/models/glm-nano"
GOAL = 0.25
BACKLOG = 120  # requests, sent at once
UTILISATION = {"below": 0.5, "at": 0.85, "past": 1.2}
SETTINGS = {
    "model": "builtin://glm-nano",
    "max_num_seqs": 16,
    "max_batch_tokens": 512,
    "max_waiting_requests": 1_000_000,  # past the knee they wait, and nobody is refused
    "max_waiting_tokens": 1_000_000_000,
}
START_LIMIT_S = 300.0
SLO_CLASS = "default"
SIGNALS = ("ttft", "ttfa", "itl", "e2e")


@dataclass(frozen=True)
class Ask:
    """One request: when, and of how many tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Seen:
    """What the client saw of one request. Seconds since the run began."""

    ask: Ask
    sent_s: float
    first_s: float
    last_s: float

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.sent_s

    @property
    def itl_s(self) -> float:
        return (self.last_s - self.first_s) / (self.ask.output_tokens - 1)


def asks(seed: int, count: int, rate: float) -> list[Ask]:
    """Return requests at random moments. rate: of them a second; 0: all at once."""
    chance, at_s, found = random.Random(seed), 0.0, []
    for _ in range(count):
        at_s += chance.expovariate(rate) if rate else 0.0
        prompt_tokens = round(min(1600, max(64, chance.lognormvariate(6.3, 0.7))))
        found.append(Ask(at_s, prompt_tokens, chance.randint(8, 32)))
    return found


# The simulated group


def simulate(calibration: Calibration, requests: Sequence[Ask]) -> Group:
    """Return the simulated group after all requests have ended in it."""
    edges = {(SLO_CLASS, name): (1.0,) for name in SIGNALS}
    group = Group("g0", calibration, edges, {SLO_CLASS: {}}, 0.0, 0.0)
    now_s = 0.0
    for ask in requests:
        now_s = ask.at_s
        group.add(Request(Arrival(now_s, ask.prompt_tokens, ask.output_tokens), SLO_CLASS), now_s)
    while not group.is_idle:
        now_s += 1.0
        group.advance(now_s)
    return group


# The real group


def calibrated(host: str, folder: Path) -> Calibration:
    """Run `glm-worker calibrate`; return what it found."""
    output = folder / "calibration.json"
    command = [sys.executable, "-m", "glm_worker.main", "calibrate", "-o", str(output), "--starts", "1"]
    with (folder / "calibrate.log").open("wb") as log:
        done = subprocess.run(command, env=environment(host, folder), stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"the calibration failed:\n{(folder / 'calibrate.log').read_text()[-4000:]}")
    text = output.read_text()
    found = json.loads(text)
    errors = ", ".join(f"{kind} {error:.1%}" for kind, error in found["measured"]["errors"].items())
    print(f"prefill {found['prefill']}, decode {found['decode']}, overhead {found['overhead_s']:.4f} s")
    print(f"median errors of the fit: {errors}", flush=True)
    alone_s, served_s = found["measured"]["backlog_s"]
    print(f"its backlog: {alone_s:.2f} s alone, served {', '.join(f'{each:.2f}' for each in served_s)} s", flush=True)
    return read_calibration(text)


@contextlib.contextmanager
def serving(host: str, folder: Path) -> Iterator[psutil.Process]:
    """`glm-worker serve`, until the end of the block; the value is its rank."""
    command = [sys.executable, "-m", "glm_worker.main", "serve"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(host, folder), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not is_ready(host):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the group does not serve:\n{(folder / 'serve.log').read_text()[-4000:]}")
            time.sleep(0.1)
        (rank,) = (p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == "glm-rank-0")
        yield rank
    except subprocess.CalledProcessError:
        print((folder / "serve.log").read_text()[-4000:], file=sys.stderr)  # what the server says of it
        raise
    finally:
        for _ in range(2):  # the second time it drains no longer
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        process.wait(30)


def environment(host: str, folder: Path) -> dict[str, str]:
    settings = SETTINGS | {"host": host, "run_dir": folder}
    return {**os.environ, **{f"GLM_{name.upper()}": str(value) for name, value in settings.items()}}


def is_ready(host: str) -> bool:
    try:
        return httpx.get(f"http://{host}:9090/readyz", timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Busy:
    """What the rank has done since it began: seconds of its steps, and of a processor."""

    steps_s: float
    cpu_s: float

    def since(self, before: "Busy") -> "Busy":
        return Busy(self.steps_s - before.steps_s, self.cpu_s - before.cpu_s)


def busy(host: str, rank: psutil.Process) -> Busy:
    names = ("glm_prefill_busy_seconds_total{", "glm_decode_busy_seconds_total{")
    text = httpx.get(f"http://{host}:9090/metrics", timeout=5.0, trust_env=False).raise_for_status().text
    values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(names)]
    if len(values) != len(names):
        raise SystemExit(f"/metrics has {len(values)} of the series {names}")
    times = rank.cpu_times()
    return Busy(sum(values), times.user + times.system)


def drive(host: str, requests: Sequence[Ask]) -> list[Seen]:
    """Have the requests sent by a process of its own; return what it saw, in the order of sending."""
    told = json.dumps([[ask.at_s, ask.prompt_tokens, ask.output_tokens] for ask in requests])
    command = [sys.executable, __file__, "--client", host]
    done = subprocess.run(command, input=told, stdout=subprocess.PIPE, text=True, check=True)
    return [Seen(ask, *times) for ask, times in zip(requests, json.loads(done.stdout), strict=True)]


# The client


def client(host: str) -> int:
    """Read requests from standard input, send them, and write what was seen of them to standard output."""
    requests = [Ask(*fields) for fields in json.load(sys.stdin)]
    print(json.dumps(asyncio.run(send_all(host, requests))))
    return 0


async def send_all(host: str, requests: Sequence[Ask]) -> list[tuple[float, float, float]]:
    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))
    words = tokenizer.encode("What is 12+30? Count from 1 to 30, and tell me what you like about it. " * 100).ids
    bodies = [body(words[: ask.prompt_tokens], ask.output_tokens) for ask in requests]
    began_s = time.monotonic()

    async def at_its_time(ask: Ask, data: bytes) -> tuple[float, float, float]:
        await asyncio.sleep(began_s + ask.at_s - time.monotonic())
        times = await send(host, data)
        return times[0] - began_s, times[1] - began_s, times[2] - began_s

    return await asyncio.gather(*(at_its_time(ask, data) for ask, data in zip(requests, bodies, strict=True)))


def body(token_ids: Sequence[int], max_tokens: int) -> bytes:
    asked = {"model": "glm-nano", "prompt": list(token_ids), "max_tokens": max_tokens, "temperature": 1, "top_p": 1}
    return json.dumps(asked | {"ignore_eos": True, "stream": True}).encode()


async def send(host: str, data: bytes) -> tuple[float, float, float]:
    """Return when the request was sent, and when its first and its last piece came, on the monotonic clock."""
    sent_s, first_s, last_s = time.monotonic(), 0.0, 0.0
    reader, writer = await asyncio.open_connection(host, 8000, limit=2**20)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: nano\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{status.decode()}{(await reader.read()).decode(errors='replace')[:1000]}")
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            last_s = time.monotonic()
            first_s = first_s or last_s
    writer.close()
    return sent_s, first_s, last_s


# Both side by side

Measured = dict[str, tuple[list["Run"], list[float]]]
"""The runs of each point, and the pace of the machine around each."""


@dataclass(frozen=True)
class Run:
    """The requests of one seed at one point, and what the rank did for them."""

    seed: int
    seen: Sequence[Seen]
    real: Busy

    @property
    def sent(self) -> list[Ask]:
        """The requests as they were sent, in order."""
        sent = [Ask(each.sent_s, each.ask.prompt_tokens, each.ask.output_tokens) for each in self.seen]
        return sorted(sent, key=lambda ask: ask.at_s)

    def quantile(self, name: str, p: int) -> float:
        return percentile([each.ttft_s if name == "ttft" else each.itl_s for each in self.seen], p)


def backlog_s(seen: Sequence[Seen]) -> float:
    """Return the seconds from the first token of all to the last: until then not all have come, and few are read."""
    return max(each.last_s for each in seen) - min(each.first_s for each in seen)


def simulated_backlog_s(calibration: Calibration, requests: Sequence[Ask]) -> float:
    ended = simulate(calibration, requests).ended
    return max(each.ended_at or 0.0 for each in ended) - min(each.first_token_at or 0.0 for each in ended)


def offered(seed: int, utilisation: float, seconds: float, calibration: Calibration, pace: float) -> list[Ask]:
    """Return requests at random moments that take this share of so many seconds of the real group's time."""
    waiting = [replace(ask, at_s=0.0) for ask in asks(seed, 400, rate=1.0)]
    each_s = pace * simulated_backlog_s(calibration, waiting) / len(waiting)
    requests = asks(seed, max(20, round(utilisation * seconds / each_s)), rate=1.0)
    stretch = seconds / requests[-1].at_s
    return [replace(ask, at_s=ask.at_s * stretch) for ask in requests]


def compared(
    point: str, calibration: Calibration, runs: Sequence[Run], paces: Sequence[float]
) -> list[dict[str, object]]:
    """Return a line for each number at one point. paces: one a run."""
    ours = [simulate(calibration, run.sent).ended for run in runs]
    paced = [simulate(slowed(calibration, pace), run.sent).ended for run, pace in zip(runs, paces, strict=True)]
    lines = []
    for name in ("ttft", "itl"):
        for p in (50, 95):
            real_s = [run.quantile(name, p) for run in runs]
            errors, errors_at_pace = (
                [
                    percentile([request.latency[name] for request in ended], p) / real - 1
                    for ended, real in zip(of_runs, real_s, strict=True)
                ]
                for of_runs in (ours, paced)
            )
            error = median(abs(each) for each in errors)
            has_goal = (name, p) == ("ttft", 95)
            lines.append(
                {
                    "bench": "simulator_error",
                    "metric": f"{name}_p{p}_error_{point}",
                    "ours": round(error, 3),
                    "errors": [round(each, 3) for each in errors],  # below 0: simulated too short
                    "real_s": [round(each, 4) for each in real_s],
                    "requests": sum(len(run.seen) for run in runs),
                    "seeds": [run.seed for run in runs],
                    "pace": [round(pace, 2) for pace in paces],
                    "cpu_share": [round(run.real.cpu_s / run.real.steps_s, 2) for run in runs],
                    "at_pace": round(median(abs(each) for each in errors_at_pace), 3),
                    "goal": GOAL if has_goal else None,
                    "met": error <= GOAL if has_goal else None,
                }
            )
    return lines


def slowed(calibration: Calibration, pace: float) -> Calibration:
    """Return the calibration with steps that take pace times as long."""
    steps = [name for name in vars(calibration) if name.startswith(("prefill_", "decode_")) and name.endswith("_s")]
    return replace(calibration, **{name: pace * getattr(calibration, name) for name in steps})


def measured(
    host: str, rank: psutil.Process, calibration: Calibration, seeds: Sequence[int], seconds: float
) -> Measured:
    """Run all seeds at all points; return the runs of each point, and the paces that go with them."""
    waiting = asks(seed=0, count=BACKLOG, rate=0.0)
    simulated_s = simulated_backlog_s(calibration, waiting)
    drive(host, waiting)  # what is made once is made here
    real_s = backlog_s(drive(host, waiting))
    found: Measured = {point: ([], []) for point in UTILISATION}
    for seed in seeds:
        before_s, of_seed = real_s, {}
        print(f"a backlog takes {real_s:.2f} s, simulated {simulated_s:.2f} s", flush=True)
        for point, utilisation in UTILISATION.items():
            before = busy(host, rank)
            seen = drive(host, offered(seed, utilisation, seconds, calibration, before_s / simulated_s))
            of_seed[point] = Run(seed, seen, busy(host, rank).since(before))
            print(f"seed {seed} {point} the knee: {len(seen)} requests, {len(seen) / seconds:.1f}/s", flush=True)
        real_s = backlog_s(drive(host, waiting))
        pace = (before_s + real_s) / 2 / simulated_s
        print(f"pace around seed {seed}: {pace:.2f}, load {os.getloadavg()[0]:.1f}", flush=True)
        for point, run in of_seed.items():
            found[point][0].append(run)
            found[point][1].append(pace)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of arrivals at each point")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--client", metavar="HOST", help="be the client of a run")
    arguments = parser.parse_args()
    if arguments.client:
        return client(arguments.client)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    host = loopback_address()
    with tempfile.TemporaryDirectory(prefix="glm-") as name:
        calibration = calibrated(host, Path(name))
        with serving(host, Path(name)) as rank:
            found = measured(host, rank, calibration, arguments.seeds, arguments.seconds)
    lines = [line for point, (runs, paces) in found.items() for line in compared(point, calibration, runs, paces)]
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
