"""The long form of the hostile tests: `make fuzz`. Prints what failed, and JSON lines with the numbers.

First beside a scripted engine that answers everything at once: cases of the API's description, then mutated bodies,
with an honest stream beside them. Then a few of both beside a real worker with glm-nano. After each a correct answer.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from fuzz.server_process import ServerProcess, a_server_process, answer_all, odd_answers
from fuzz.victim import a_victim
from integration.pods import running_group
from integration.server_world import MODEL

MAX_BLOCK_S = 0.250
_SUM: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0}


async def run(module: str, port: int, cases: int, *options: str) -> bool:
    """Run one of the two kinds of cases in a process of its own, and return whether nothing failed."""
    command = [sys.executable, "-m", f"fuzz.{module}", str(port), "--cases", str(cases), *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    print(f"{module}:\n{output.decode()}", flush=True)
    return process.returncode == 0


async def beside_a_scripted_engine(folder: Path, described: int, bodies: int) -> bool:
    async with a_server_process(folder) as world:
        engine = await world.serve()
        before = world.process.memory_info().rss
        left: asyncio.Queue[Any] = asyncio.Queue()
        answering = asyncio.create_task(answer_all(engine, odd_answers(11), left))
        passed = True
        for module, cases in (("described", described), ("bodies", bodies)):
            async with a_victim(world, engine, left) as gaps:
                passed &= await run(module, world.port, cases)
            told = {"beside": module, "gap_p50_s": round(gaps.percentile(50), 4), "gap_p99_s": gaps.percentile(99)}
            print(json.dumps({**told, "gap_worst_s": gaps.worst, "met": gaps.worst <= MAX_BLOCK_S}), flush=True)
        answering.cancel()
        answering = asyncio.create_task(answer_all(engine))
        await engine.step(num_running=0)
        passed &= await is_well(world)
        answering.cancel()
        after = world.process.memory_info().rss
        print(json.dumps({"memory_before": before, "memory_after": after, "ratio": round(after / before, 3)}))
        crashes = [line[:300] for line in world.log.read_text().splitlines() if "Traceback" in line]
        print(f"tracebacks in the log: {len(crashes)}", *crashes[:3], sep="\n")
        return passed and not crashes


async def is_well(world: ServerProcess) -> bool:
    """Return whether nothing is left in flight, and a chat is answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):  # a client that has just left may not have been noticed yet
            while any((await world.in_flight()).values()):
                pass
    in_flight = await world.in_flight()
    reply = await world.http.post("/v1/chat/completions", json=_SUM)
    text = reply.json()["choices"][0]["message"]["content"]
    print(f"after all of it: {in_flight}, and the answer {text!r}", flush=True)
    return not any(in_flight.values()) and text == "The answer is 42."


async def beside_a_worker(folder: Path, cases: int) -> bool:
    with running_group(folder, pods=1, ranks_per_pod=1) as group:
        await asyncio.to_thread(group.serving)
        host = ("--host", group.leader.host)
        passed = await run("described", 8000, cases, *host)
        passed &= await run("bodies", 8000, cases, *host)
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            reply = await client.post(f"http://{group.leader.host}:8000/v1/chat/completions", json=_SUM)
        text = reply.json()["choices"][0]["message"]["content"]
        print(f"the worker's answer after all of it: {text!r}", flush=True)
        return passed and "42" in text


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--described", type=int, default=5_500, help="cases of the description")
    parser.add_argument("--bodies", type=int, default=20_000, help="mutated bodies")
    parser.add_argument("--worker", type=int, default=300, help="of each, beside a real worker; 0: none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passed = await beside_a_scripted_engine(folder, arguments.described, arguments.bodies)
        if arguments.worker:
            passed &= await beside_a_worker(folder, arguments.worker)
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
