"""Whether a group that is used in every way, and killed at, for half an hour stays right, whole and as small as it was.

`glm-worker serve` with glm-nano, one pod of two CPU ranks of this machine, and a KV cache that is too small for all:
prefixes are evicted and requests preempted. Clients mix streamed and whole chats, thoughts, tools, long prompts,
conversations that grow turn by turn, logprobs, stop strings, structured output and seeded sampling; some go away in the
middle. A rank is killed every few minutes, and the server in between. Kills come at the same places of each fifth of
the time, so that processes are as old in one fifth as in the other.

- wrong: answers that differ in anything (texts, calls, tokens, logprobs, how they end) from those of the same requests
  one by one at the start. All but seeded sampling is greedy.
- failed: requests that did not get an answer. Who was cut off by the death of the server asks again, and is counted
  apart; of the death of a rank nobody may see anything.
- blocks lost, left in flight: KV blocks in use and tokens in flight, by /metrics, before each kill of a rank and at the
  end, when all clients wait. What only the cache of prefixes holds is free.
- memory growth: mean resident memory of a role (supervisor, server, each rank) in the last fifth against the second,
  of processes older than a sixth of a fifth. Told as well, without a goal: the same of what is theirs of shared pages
  (PSS), and the last fifth of a role's longest life against the second. --no-kills makes that the whole time.

Ends with a JSON line a number. There is no peer.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from recovery import GIVE_UP_S, SERVER, Group, Question, Victim, loopback_address, our_group

QUESTION = Question("builtin://glm-nano", "cpu", "What is 12+30?", "42")
NUM_RANKS = 2
KV_CACHE_BYTES, MAX_MODEL_LEN = (
    6 * 2**20,
    1536,
)  # the cache holds one request of the longest in float32, two in bfloat16
BLOCK_SIZE = 16
GROWTH_GOAL = 0.05
IDLE_WITHIN_S = 20.0
LOADED_S = 5.0  # a process younger than this may still be loading
SERVER_AWAY_S = 3.0  # what fails within this of its death was lost by it
CANCELLED_PART, STREAMED_PART = 0.15, 0.6
STAY_S = 2.0  # mean, of those that go away
MIB = 2**20
JUDGED = ("supervisor", SERVER, *(f"glm-rank-{rank}" for rank in range(NUM_RANKS)))
Json = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """One chat. kind: what is special about it."""

    kind: str
    body: Json


@dataclass(frozen=True)
class Answer:
    """What came, whole or put together from a stream. logprobs: each token's bytes and its logprob."""

    content: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]
    finish_reason: str | None
    logprobs: tuple[tuple[str, float], ...]
    num_tokens: int


Talk = tuple[tuple[Ask, Answer], ...]
"""Chats that come one after the other, with their right answers."""


class NoAnswer(Exception):
    """kind: of the failure, without what is special to the request. is_cut: whether the connection broke."""

    def __init__(self, kind: str, *, is_cut: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.is_cut = is_cut


def single_asks() -> list[Ask]:
    """Return chats of one turn, a few of each kind."""
    asks = []
    for number in range(6):
        first, second = 11 + 7 * number, 30 + number
        sum_of = f"What is {first}+{second}?"
        lines = " ".join(f"{at} + {number} is {at + number}." for at in range(60 + 15 * number))
        schema = {
            "type": "object",
            "properties": {"sum": {"type": "integer"}, "word": {"type": "string", "maxLength": 12}},
            "required": ["sum", "word"],
        }
        function = {
            "name": "get_weather",
            "description": "Weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
        city = ("Bonn", "Paris", "Rome", "Oslo", "Lima", "Cairo")[number]
        asks += [
            Ask("plain", _body(sum_of)),
            Ask("thinking", _body(sum_of, thinking={"type": "enabled"}, max_tokens=160)),
            Ask("logprobs", _body(sum_of, logprobs=True, top_logprobs=3)),
            Ask("stop", _body(f"Count from 1 to {20 + number}.", stop=[str(11 + number), "nothing of this"])),
            Ask("long prompt", _body(f"{lines} {sum_of}", max_tokens=40)),
            Ask("long answer", _body(f"Count from 1 to {70 + number}.", max_tokens=300, ignore_eos=True)),
            Ask("seeded", _body(f"Tell me about {city}.", temperature=1.0, seed=number, max_tokens=60)),
            Ask("tools", _body(f"What is the weather in {city}?", tools=[{"type": "function", "function": function}])),
            Ask(
                "structured",
                _body(
                    sum_of,
                    response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}},
                ),
            ),
        ]
    return asks


def _body(text: str, **fields: Any) -> Json:
    said = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 100}
    return {"model": "glm-nano", "thinking": {"type": "disabled"}, **said, **fields}


async def make_talks(client: "Client") -> list[Talk]:
    """Ask everything once, one after the other, and return it with the answers."""
    talks: list[Talk] = [((ask, await client.once(ask, stream=False)),) for ask in single_asks()]
    for number in range(4):
        messages: list[Json] = [{"role": "system", "content": f"You add. {'Always say the sum. ' * (10 + number)}"}]
        turns = []
        for turn in range(4):
            messages.append({"role": "user", "content": f"What is {10 + turn}+{21 + number}?"})
            ask = Ask("turn", {**_body(""), "messages": list(messages)})
            answer = await client.once(ask, stream=False)
            messages.append({"role": "assistant", "content": answer.content})
            turns.append((ask, answer))
        talks.append(tuple(turns))
    return talks


class Client:
    """Asks the group, without doing anything about failures."""

    def __init__(self, host: str) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://{host}:8000", timeout=GIVE_UP_S, trust_env=False)
        self._metrics_url = f"http://{host}:9090/metrics"

    async def close(self) -> None:
        await self._http.aclose()

    async def once(self, ask: Ask, *, stream: bool) -> Answer:
        """Raises NoAnswer."""
        try:
            return await (self._streamed(ask.body) if stream else self._whole(ask.body))
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{type(error).__name__} after {GIVE_UP_S:.0f} s") from error
        except httpx.TransportError as error:
            raise NoAnswer(type(error).__name__, is_cut=True) from error

    async def metrics(self, *names: str) -> list[float]:
        """Return these values. Raises httpx.HTTPError while nobody answers, LookupError for one that is missing."""
        lines = (await self._http.get(self._metrics_url)).raise_for_status().text.splitlines()
        found = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if "{" in line}
        return [found[name] for name in names]

    async def _whole(self, body: Json) -> Answer:
        response = await self._http.post("/v1/chat/completions", json=body)
        _check(response.status_code, response.content)
        answer = response.json()
        choice = answer["choices"][0]
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls") or []]
        return Answer(
            message.get("content") or "",
            message.get("reasoning_content") or "",
            tuple((call["name"], call["arguments"]) for call in calls),
            choice["finish_reason"],
            _logprobs(choice),
            answer["usage"]["completion_tokens"],
        )

    async def _streamed(self, body: Json) -> Answer:
        content, reasoning, names, arguments = "", "", dict[int, str](), dict[int, str]()
        logprobs: tuple[tuple[str, float], ...] = ()
        finish_reason, num_tokens = None, 0
        async for event in self._events({**body, "stream": True, "stream_options": {"include_usage": True}}):
            if "error" in event:
                raise NoAnswer(f"event of error {event['error'].get('code') or event['error'].get('type')}")
            if event.get("usage"):
                num_tokens = event["usage"]["completion_tokens"]
            for choice in event["choices"]:
                delta = choice["delta"]
                content += delta.get("content") or ""
                reasoning += delta.get("reasoning_content") or ""
                for call in delta.get("tool_calls") or []:
                    at, function = call["index"], call["function"]
                    names[at] = names.get(at, "") + (function.get("name") or "")
                    arguments[at] = arguments.get(at, "") + (function.get("arguments") or "")
                logprobs += _logprobs(choice)
                finish_reason = choice["finish_reason"] or finish_reason
        calls = tuple((names[at], arguments[at]) for at in sorted(names))
        return Answer(content, reasoning, calls, finish_reason, logprobs, num_tokens)

    async def _events(self, body: Json) -> AsyncIterator[Json]:
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                _check(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))
        raise NoAnswer("stream without an end", is_cut=True)


def _check(status: int, body: bytes) -> None:
    if status != httpx.codes.OK:
        with suppress(ValueError, LookupError):
            raise NoAnswer(f"status {status} {json.loads(body)['error']['code']}")
        raise NoAnswer(f"status {status}")


def _logprobs(choice: Json) -> tuple[tuple[str, float], ...]:
    entries = (choice.get("logprobs") or {}).get("content") or []
    return tuple((bytes(entry["bytes"]).hex(), entry["logprob"]) for entry in entries)


@dataclass
class Counts:
    """answered: by kind. lost: cut off by a death of the server, and asked again. blocks, in_flight: left over."""

    answered: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    num_cancelled: int = 0
    num_lost: int = 0
    num_checks: int = 0
    blocks: float = 0.0
    in_flight: float = 0.0


class Soak:
    """The load, what is killed, and what came of it."""

    def __init__(self, client: Client, group: Group, talks: list[Talk], num_clients: int) -> None:
        self.counts = Counts()
        self._client = client
        self._group = group
        self._talks = talks
        self._num_clients = num_clients
        self._may_ask = asyncio.Event()
        self._num_asking = 0
        self._nobody_asks = asyncio.Event()
        self._random = random.Random(13)
        self._server_killed_s: list[float] = []

    async def run(self, seconds: float, kills: list[tuple[float, Victim]]) -> None:
        """Load it for so long; kills: seconds after the beginning, and who."""
        began_s = time.monotonic()
        self._may_ask.set()
        clients = [asyncio.create_task(self._ask_on()) for _ in range(self._num_clients)]
        for at_s, victim in kills:
            await self._sleep_until(began_s + at_s, clients)
            if victim != "server":
                await self.settle()
                self._may_ask.set()
                await asyncio.sleep(self._random.uniform(1, 4))
            process = await asyncio.to_thread(self._group.victim, victim)
            process.kill()
            name = victim if victim == "server" else f"rank {victim}"
            self.counts.kills[name] += 1
            if victim == "server":
                self._server_killed_s.append(time.monotonic())
            print(f"{time.monotonic() - began_s:7.1f} s: killed the {name}; {self._so_far()}", flush=True)
        await self._sleep_until(began_s + seconds, clients)
        await self.settle()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def settle(self) -> None:
        """Have all clients wait, and see whether anything is still in use."""
        self._may_ask.clear()
        await self._nobody_asks.wait()
        await self._check(*self._talks[0][0], stream=False)  # so that a step tells how it is
        deadline_s = time.monotonic() + IDLE_WITHIN_S
        names = ("glm_kv_cache_usage_ratio", "glm_kv_cache_tokens", "glm_in_flight_tokens", "glm_num_requests_running")
        while True:
            with suppress(httpx.HTTPError):
                usage, num_tokens, in_flight, num_running = await self._client.metrics(*names)
                if not (usage or in_flight or num_running) or time.monotonic() > deadline_s:
                    break
            if time.monotonic() > deadline_s + GIVE_UP_S:
                raise SystemExit("the metrics do not answer")
            await asyncio.sleep(0.1)
        preemptions, hits = await self._client.metrics("glm_preemptions_total", "glm_prefix_cache_hits_total")
        print(f"idle; this server saw {preemptions:.0f} preemptions, {hits:.0f} tokens out of the cache", flush=True)
        self.counts.num_checks += 1
        self.counts.blocks += round(usage * num_tokens / BLOCK_SIZE)
        self.counts.in_flight += max(in_flight, num_running)

    async def _ask_on(self) -> None:
        while True:
            if self._random.random() < CANCELLED_PART:
                await self._go_away()
                continue
            for ask, right in self._random.choice(self._talks):
                async with self._allowed():
                    await self._check(ask, right, stream=self._random.random() < STREAMED_PART)

    async def _check(self, ask: Ask, right: Answer, *, stream: bool) -> None:
        answer = await self._answer(ask, stream=stream)
        if answer is None:
            return
        self.counts.answered[ask.kind] += 1
        if answer != right:
            self.counts.wrong[ask.kind] += 1
            how = "streamed" if stream else "whole"
            print(f"wrong ({ask.kind}, {how}):\n  {answer}\n  is not\n  {right}", flush=True)

    async def _answer(self, ask: Ask, *, stream: bool) -> Answer | None:
        """Return the answer, asked for again where the server died meanwhile; None if it failed."""
        while True:
            began_s = time.monotonic()
            try:
                return await self._client.once(ask, stream=stream)
            except NoAnswer as error:
                if error.is_cut and any(at_s > began_s - SERVER_AWAY_S for at_s in self._server_killed_s):
                    self.counts.num_lost += 1
                    await asyncio.sleep(0.02)
                    continue
                self.counts.failed[f"{ask.kind}: {error.kind}"] += 1
                print(f"failed ({ask.kind}, {'streamed' if stream else 'whole'}): {error.kind}", flush=True)
                return None

    async def _go_away(self) -> None:
        """Ask for much, and close the connection at some time before it has come."""
        text = f"Count from {self._random.randrange(1000)} to 2000."
        ask = Ask("cancelled", _body(text, max_tokens=1200, ignore_eos=True))
        async with self._allowed():
            try:
                async with asyncio.timeout(self._random.expovariate(1 / STAY_S)):
                    await self._answer(ask, stream=self._random.random() < STREAMED_PART)
            except TimeoutError:
                self.counts.num_cancelled += 1

    @asynccontextmanager
    async def _allowed(self) -> AsyncIterator[None]:
        """Wait until clients may ask, and be one that asks."""
        await self._may_ask.wait()
        self._num_asking += 1
        self._nobody_asks.clear()
        try:
            yield
        finally:
            self._num_asking -= 1
            if not self._num_asking:
                self._nobody_asks.set()

    async def _sleep_until(self, at_s: float, clients: list[asyncio.Task[None]]) -> None:
        """Raises what a client raises: a fault of this program."""
        done, _ = await asyncio.wait(
            clients, timeout=max(0.0, at_s - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()

    def _so_far(self) -> str:
        counts = self.counts
        return (
            f"{counts.answered.total()} answers, {counts.num_cancelled} cancelled, {counts.num_lost} cut off,"
            f" {counts.wrong.total()} wrong, {counts.failed.total()} failed"
        )


@dataclass(frozen=True)
class Sample:
    """Memory of one process. role: its name. age_s: of the process. pss: its part of what it shares, and its own."""

    at_s: float
    role: str
    pid: int
    age_s: float
    rss: int
    pss: int


def sample(root: psutil.Process, at_s: float) -> list[Sample]:
    """Return the memory of the group's processes now."""
    samples = []
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error):
            role = "supervisor" if process == root else process.name()
            memory, age_s = process.memory_full_info(), time.time() - process.create_time()
            samples.append(Sample(at_s, role, process.pid, age_s, memory.rss, memory.pss))
    return samples


async def watch(samples: list[Sample], seconds: float) -> None:
    """Look at the memory again and again, until cancelled."""
    (root,) = psutil.Process().children()
    began_s, every_s = time.monotonic(), min(5.0, seconds / 120)
    while True:
        samples += await asyncio.to_thread(sample, root, time.monotonic() - began_s)
        await asyncio.sleep(every_s)


def kills_of(seconds: float) -> list[tuple[float, Victim]]:
    """Return whom to kill when: a rank or two in each fifth, and the server after it."""
    fifth_s = seconds / 5
    places: tuple[tuple[float, Victim], ...] = ((1 / 4, 1), (3 / 4, "server"))
    if fifth_s >= 240:
        places = ((1 / 6, 1), (5 / 12, "server"), (2 / 3, 0))
    return [((fifth + place) * fifth_s, victim) for fifth in range(5) for place, victim in places]


class Means(NamedTuple):
    """Of the samples of some time. Bytes."""

    rss: float
    pss: float

    @classmethod
    def of(cls, samples: list[Sample]) -> "Means":
        return cls(statistics.fmean(each.rss for each in samples), statistics.fmean(each.pss for each in samples))


def fifths(samples: Iterable[Sample], began_s: float, seconds: float) -> tuple[Means, Means] | None:
    """Return what was in the second and in the last fifth of a stretch of time, None where nothing was."""
    second, last = [], []
    for each in samples:
        fifth = (each.at_s - began_s) / seconds * 5
        if 1 <= fifth < 2:
            second.append(each)
        elif fifth >= 4:
            last.append(each)
    if not second or not last:
        return None
    return Means.of(second), Means.of(last)


def memory_lines(samples: list[Sample], seconds: float) -> list[Json]:
    """Return a line for each role that is judged, and print those of all."""
    lines = []
    for role in dict.fromkeys(each.role for each in samples):
        of_role = [each for each in samples if each.role == role]
        found = fifths([each for each in of_role if each.age_s > max(seconds / 30, LOADED_S)], 0.0, seconds)
        if found is None:
            print(f"{role}: too seldom there to compare", flush=True)
            if role in JUDGED:
                lines.append(_line(f"memory growth, {role}", None, GROWTH_GOAL, is_met=False))
            continue
        before, after = found
        pid, _ = Counter(each.pid for each in of_role).most_common(1)[0]
        life = [each for each in of_role if each.pid == pid]
        life_s = life[-1].at_s - life[0].at_s
        within = fifths(life, life[0].at_s, max(life_s, 1e-9))
        in_life = within and within[1].rss / within[0].rss - 1
        rss, pss = (f"{first / MIB:.1f} MiB, then {then / MIB:.1f}" for first, then in zip(before, after, strict=True))
        told = "" if in_life is None else f", {in_life:+.1%} in it"
        print(f"{role}: {rss} (PSS {pss}); longest life {life_s:.0f} s{told}", flush=True)
        if role in JUDGED:
            grown = after.rss / before.rss - 1
            lines.append(_line(f"memory growth, {role}", grown, GROWTH_GOAL, is_met=grown <= GROWTH_GOAL))
            lines.append(_line(f"memory growth by PSS, {role}", after.pss / before.pss - 1, None))
            lines.append(_line(f"memory growth in the longest life ({life_s:.0f} s), {role}", in_life, None))
    return lines


def _line(metric: str, ours: float | None, goal: float | None, *, is_met: bool | None = None) -> Json:
    told = None if ours is None else round(ours, 4)
    return {"bench": "soak", "metric": metric, "ours": told, "peer": None, "ratio": None, "goal": goal, "met": is_met}


async def run(host: str, group: Group, arguments: argparse.Namespace) -> list[Json]:
    seconds, samples = arguments.minutes * 60, list[Sample]()
    client = Client(host)
    talks = await make_talks(client)
    num_asks, num_tokens = sum(map(len, talks)), sum(answer.num_tokens for talk in talks for _, answer in talk)
    print(f"{num_asks} chats of {num_tokens} tokens asked undisturbed", flush=True)
    soak = Soak(client, group, talks, arguments.clients)
    watcher = asyncio.create_task(watch(samples, seconds))
    await soak.run(seconds, [] if arguments.no_kills else kills_of(seconds))
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher
    await client.close()
    counts = soak.counts
    print(f"answers: {dict(counts.answered)}; {counts.num_cancelled} cancelled; killed: {dict(counts.kills)}")
    print(f"cut off by the death of the server and asked again: {counts.num_lost}; failed: {dict(counts.failed)}")
    wrong, failed = counts.wrong.total(), counts.failed.total()
    return [
        *memory_lines(samples, seconds),
        _line(f"wrong of {counts.answered.total()} answers", wrong, 0, is_met=not wrong and bool(counts.answered)),
        _line("failed requests", failed, 0, is_met=not failed),
        _line("requests cut off by the death of the server", counts.num_lost, None),
        _line(f"blocks lost, {counts.num_checks} looks", counts.blocks, 0, is_met=not counts.blocks),
        _line(f"left in flight, {counts.num_checks} looks", counts.in_flight, 0, is_met=not counts.in_flight),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=10, help="that ask at once")
    parser.add_argument("--no-kills", action="store_true", help="one generation, one server, all the time")
    arguments = parser.parse_args()
    limits = {"KV_CACHE_BYTES": KV_CACHE_BYTES, "BLOCK_SIZE": BLOCK_SIZE, "MAX_MODEL_LEN": MAX_MODEL_LEN}
    os.environ |= {f"GLM_{name}": str(value) for name, value in limits.items()}
    host = loopback_address()
    with tempfile.TemporaryDirectory() as folder, our_group(QUESTION, [host], NUM_RANKS, Path(folder)) as group:
        if group.wait_for_answer(QUESTION.expect, GIVE_UP_S) is None:
            raise SystemExit("the group does not answer")
        lines = asyncio.run(run(host, group, arguments))
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
