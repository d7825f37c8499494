"""What a long prompt does to the streams beside it, and what two ranks of one thread are worth against one of two.

`glm-worker serve` on CPU ranks of this machine, asked over HTTP.

- gaps: four streams of the long-context model of models.py go on. Prompts of 4,096 tokens come one after the other,
  each another one, so that the cache of prefixes has none. p99 of the gaps between two events of a stream while such a
  prompt is under way, against those of the same streams without one, before and after.
- ranks: the 172 M model, eight streams at once that begin together. Tokens a second of all, of two ranks with a thread
  each, which divide heads and experts, against one rank with two threads. Both in turns, the median of the rounds.

Refuses to run beside other load; --anyway runs all the same. Ends with a JSON line a number. Exit status 1: a goal was
missed.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from engines.machine import Busy, wait_until_quiet
from recovery import START_LIMIT_S, Question, loopback_address, our_group, percentile

from models import CACHE, KINDS, make

GAP_GOAL, RANKS_GOAL = 2.0, 0.8
NUM_PROMPT_TOKENS, NUM_PROMPTS, NUM_STREAMS = 4096, 12, 4
NUM_AT_ONCE, NUM_TOKENS, ROUNDS = 8, 200, 3
CALM_S = 10.0
Json = dict[str, Any]
Gap = tuple[float, float]  # when it ended, and how long it was


@contextlib.contextmanager
def serving(kind: str, ranks: int, settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the address of a group of one pod, and the name of its model."""
    folder_of_model = CACHE / kind
    make(KINDS[kind], folder_of_model)
    host, names = loopback_address(), {f"GLM_{name.upper()}": value for name, value in settings.items()}
    os.environ.update(names)
    question = Question(f"file://{folder_of_model}", "cpu", "hello", "")
    with tempfile.TemporaryDirectory() as folder, our_group(question, [host], ranks, Path(folder)) as group:
        for name in names:
            del os.environ[name]
        if group.wait_for_answer("", START_LIMIT_S) is None:
            raise SystemExit("the group does not answer")
        url = f"http://{host}:8000"
        yield url, httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"]


async def stream(url: str, body: Json, gaps: list[Gap]) -> int:
    """Read a stream to its end; return how many events with text came."""
    num, last_s = 0, None
    async with (
        httpx.AsyncClient(trust_env=False, timeout=600) as http,
        http.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}) as reply,
    ):
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if not line.startswith("data: {") or '"text":""' in line:
                continue
            now_s, num = time.perf_counter(), num + 1
            if last_s is not None:
                gaps.append((now_s, now_s - last_s))
            last_s = now_s
    return num


async def gaps_beside_prompts(url: str, model: str) -> tuple[list[float], list[float], list[float]]:
    """Return gaps without and beside long prompts, and how long these took to their first token."""
    gaps: list[Gap] = []
    asked = {"model": model, "max_tokens": 100_000, "ignore_eos": True, "temperature": 0}
    streams = [
        asyncio.create_task(stream(url, {**asked, "prompt": f"stream {number}"}, gaps)) for number in range(NUM_STREAMS)
    ]
    await asyncio.sleep(CALM_S)
    spans, took_s = [], []
    async with httpx.AsyncClient(trust_env=False, timeout=600) as http:
        for number in range(NUM_PROMPTS):
            began_s = time.perf_counter()
            tokens = random.Random(number).choices(range(3, 1000), k=NUM_PROMPT_TOKENS)
            reply = await http.post(
                f"{url}/v1/completions", json={"model": model, "prompt": tokens, "max_tokens": 1, "ignore_eos": True}
            )
            reply.raise_for_status()
            spans.append((began_s, time.perf_counter()))
            took_s.append(spans[-1][1] - began_s)
            await asyncio.sleep(0.5)
    await asyncio.sleep(CALM_S)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    first_s, last_s = spans[0][0], spans[-1][1]
    alone = [gap_s for at_s, gap_s in gaps if at_s < first_s or at_s - gap_s > last_s]
    beside = [gap_s for at_s, gap_s in gaps if any(begin_s < at_s and at_s - gap_s < end_s for begin_s, end_s in spans)]
    return alone, beside, took_s


async def tokens_a_second(url: str, model: str, salt: str) -> float:
    """Return what eight streams that begin together get a second, from their first token on."""
    gaps: list[Gap] = []
    asked = {"model": model, "max_tokens": NUM_TOKENS, "ignore_eos": True, "temperature": 0}
    await asyncio.gather(*(stream(url, {**asked, "prompt": f"{salt} {n}"}, gaps) for n in range(NUM_AT_ONCE)))
    began_s, ended_s = min(at_s - gap_s for at_s, gap_s in gaps), max(at_s for at_s, _ in gaps)
    return len(gaps) / (ended_s - began_s)


def of_prompts() -> Json:
    with serving("long-context", 1, {}) as (url, model):
        alone, beside, took_s = asyncio.run(gaps_beside_prompts(url, model))
    p99_alone_s, p99_s = percentile(alone, 99), percentile(beside, 99)
    print(
        f"gaps p99 beside a prompt of {NUM_PROMPT_TOKENS} tokens {p99_s * 1e3:.1f} ms of {len(beside)}, alone "
        f"{p99_alone_s * 1e3:.1f} ms of {len(alone)}; median {statistics.median(beside) * 1e3:.1f} and "
        f"{statistics.median(alone) * 1e3:.1f} ms; such a prompt takes {statistics.median(took_s):.2f} s",
        flush=True,
    )
    return _line(
        "itl_p99_s beside a prompt of 4096 tokens", p99_s, p99_alone_s, GAP_GOAL, is_met=p99_s <= GAP_GOAL * p99_alone_s
    )


def _layout(ranks: int) -> dict[str, str]:
    """Return the settings of ranks that divide heads and experts, two threads in all."""
    return {"threads_per_rank": str(2 // ranks), "expert_parallel": str(ranks), "tensor_parallel": str(ranks)}


def of_ranks(rounds: int) -> Json:
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for number, ranks in itertools.product(range(rounds), speeds):
        with serving("bench-172m", ranks, _layout(ranks)) as (
            url,
            model,
        ):
            asyncio.run(tokens_a_second(url, model, "warm up"))
            speeds[ranks].append(asyncio.run(tokens_a_second(url, model, f"round {number}")))
        print(f"{ranks} ranks of {2 // ranks} threads: {speeds[ranks][-1]:.0f} tokens/s", flush=True)
    two, one = statistics.median(speeds[2]), statistics.median(speeds[1])
    return _line("tokens/s of two ranks of one thread, 8 streams", two, one, RANKS_GOAL, is_met=two >= RANKS_GOAL * one)


def _line(metric: str, ours: float, peer: float, goal: float, *, is_met: bool) -> Json:
    told = {"ours": round(ours, 6), "peer": round(peer, 6), "ratio": round(ours / peer, 3)}
    return {"bench": "neighbours", "metric": metric, **told, "goal": goal, "met": is_met}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each number of ranks")
    parser.add_argument("--anyway", action="store_true", help="measure beside other work")
    arguments = parser.parse_args()
    if not arguments.anyway:
        try:
            wait_until_quiet()
        except Busy as error:
            raise SystemExit(str(error)) from None
    lines = [of_prompts(), of_ranks(arguments.rounds)]
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0 if all(line["met"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
