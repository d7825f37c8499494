"""Raw bytes against a gateway, or the worker's server, over real sockets: `python -m fuzz.raw --cases 50000`.

What has made a new line of the edge run is kept and changed further. Each case is one connection: it is sent, its half
is closed, and all that comes back is judged: well-formed replies, no failure of ours that a case does not deserve, an
end within 2 s, nothing told of a key or a prompt. What comes to the group is judged as well. Memory must stay flat.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from fuzz.lines import Lines
from fuzz.raw_bytes import CANARY, KEY, MODEL, mutated, parts_of, seeds
from fuzz.replies import ALLOWED, Malformed, complaints, replies_in
from fuzz.server_process import answer_all
from fuzz.strict_group import StrictGroup
from glm_edge.http import protocol
from glm_gateway.access.cors import Cors
from glm_gateway.access.cors_config import CorsConfig
from glm_gateway.access.decide import Mode, tenant_of
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.exchange import body as gateway_body
from glm_worker.server.edge import body as worker_body
from integration.gateway_world import TOKEN, a_gateway, member
from integration.server_world import a_server

DEADLINE_S = 2.0
SECRET = b"0" * 16
MAX_KEPT = 3000
WARM = 0.2  # of the cases, before memory is looked at
OPEN_SHARE = 0.05  # of cases whose client keeps its half open, and waits for what the server does
_WAITS: tuple[tuple[Any, str], ...] = (
    *((protocol, name) for name in ("HEAD_S", "IDLE_S", "REST_S", "LINGER_S")),
    (gateway_body, "BODY_IDLE_S"),
    (worker_body, "IDLE_S"),
)
_OF_GATEWAY = (
    "glm_edge/http/",
    "glm_edge/json_bounds",
    "glm_gateway/app",
    "glm_gateway/exchange/",
    "glm_gateway/proxy/heads",
    "glm_gateway/surfaces/",
)
_OF_GATEWAY += ("glm_gateway/access/", "glm_gateway/admission/", "glm_gateway/pages/")
_OF_WORKER = (
    "glm_edge/http/",
    "glm_edge/json_bounds",
    "glm_worker/server/edge/",
    "glm_worker/server/app",
    "glm_worker/server/backend",
)


@dataclass
class Target:
    """folders: of whose files lines count. allowed: statuses. secrets: what no error tells back.

    group: that was asked; None: there is no gateway.
    """

    port: int
    folders: tuple[str, ...]
    allowed: frozenset[int]
    secrets: tuple[str, ...]
    group: StrictGroup | None = None


@dataclass
class Report:
    """failures: the first few, each with the bytes."""

    num_cases: int = 0
    num_failures: int = 0
    failures: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    num_lines: int = 0
    num_kept: int = 0
    num_asked: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    memory_ratio: float = 1.0

    def fail(self, why: str, data: bytes) -> None:
        self.num_failures += 1
        if len(self.failures) < 20:
            self.failures.append(f"{why}\n    {data[:3000]!r}")


@contextlib.asynccontextmanager
async def the_gateway() -> AsyncIterator[Target]:
    """Run a gateway in this loop, before a group that is strict."""
    tenant = tenant_of("fuzz", SECRET)
    said = {"x-glm-gateway": TOKEN, "x-glm-role": "developer", "x-glm-tenant": tenant, "x-glm-frames": "1"}
    group = StrictGroup({name.encode(): value.encode() for name, value in said.items()})
    await group.start()
    keys = Keyring({"fuzz": new_key(KEY, datetime.now(UTC), group=None, role="developer", expires=None)})
    gate = Gate(mode=Mode.KEYS, tenant_secret=SECRET, keyring=lambda: keys)
    cors = Cors.of(CorsConfig(origins=("https://a.example",)))
    async with a_gateway(MODEL, [member("g0", group.port)], gate=gate, cors=cors) as (url, _):
        port = urlsplit(url).port
        assert port is not None
        yield Target(port, _OF_GATEWAY, ALLOWED, (KEY, CANARY), group)
    await group.stop()


@contextlib.asynccontextmanager
async def the_worker(folder: Path) -> AsyncIterator[Target]:
    """Run the worker's server in this loop, before a scripted engine that answers at once."""
    async with a_server(folder) as world:
        engine = await world.serve()
        answering = asyncio.create_task(answer_all(engine))
        yield Target(world.port, _OF_WORKER, ALLOWED | {529}, (KEY,))  # it tells back names of fields, of any text
        answering.cancel()


@contextlib.contextmanager
def short_waits() -> Iterator[None]:
    """Let what a connection is given be a fraction of a second, so that who is silent is given up at once."""
    before = [(module, name, getattr(module, name)) for module, name in _WAITS]
    for module, name in _WAITS:
        setattr(module, name, 0.3)
    try:
        yield
    finally:
        for module, name, seconds in before:
            setattr(module, name, seconds)


class Errors(logging.Handler):
    """Notes what is logged as an error: there is none of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record)[-1500:])


async def send(target: Target, num_cases: int, seed: int) -> Report:
    """Send so many cases, and judge what comes back. Blocks the loop between them."""
    report, lines, errors = Report(), Lines(target.folders), Errors()
    honest, kept, began_s = seeds(), list[bytes](), time.monotonic()
    process, warm_bytes = psutil.Process(), 0
    logging.getLogger().addHandler(errors)
    quiet = logging.getLogger("glm_edge")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    open_ones: set[asyncio.Task[None]] = set()
    with short_waits():
        lines.start()
        try:
            for number in range(num_cases):
                if number == int(num_cases * WARM):
                    warm_bytes = process.memory_info().rss
                dice = random.Random(f"{seed}/{number}")
                data = honest[number] if number < len(honest) else mutated(dice, honest, kept)
                if dice.random() < OPEN_SHARE:
                    task = asyncio.create_task(_case(target, report, dice, data, half_closes=False))
                    open_ones.add(task)
                    task.add_done_callback(open_ones.discard)
                    if len(open_ones) > 50:
                        await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
                    continue
                num_lines, num_errors = len(lines.seen), len(errors.said)
                await _case(target, report, dice, data, half_closes=True)
                if len(lines.seen) > num_lines and number >= len(honest) and len(kept) < MAX_KEPT:
                    kept.append(data)
                for said in errors.said[num_errors:]:
                    report.fail(f"it logged {said}", data)
            if open_ones:
                await asyncio.wait(open_ones)
        finally:
            lines.stop()
            logging.getLogger().removeHandler(errors)
            quiet.setLevel(level)
    report.memory_ratio = process.memory_info().rss / max(warm_bytes, 1)
    report.num_lines, report.num_kept = len(lines.seen), len(kept)
    report.seconds = time.monotonic() - began_s
    if target.group is not None:
        report.num_asked = target.group.num_asked
        for violation in target.group.violations:
            report.fail(f"the group: {violation}", b"")
    return report


async def _case(target: Target, report: Report, dice: random.Random, data: bytes, *, half_closes: bool) -> None:
    """Send one case, on a connection of its own."""
    report.num_cases += 1
    began_s = time.monotonic()
    got = bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S if half_closes else 2 * DEADLINE_S):
            await _exchanged(target.port, parts_of(dice, data), got, half_closes=half_closes)
    except TimeoutError:
        report.fail(f"no end within {DEADLINE_S:g} s, after {bytes(got[:200])!r}", data)
        return
    except ConnectionError:  # a reset behind what was read is an end, too
        pass
    seconds = time.monotonic() - began_s
    if half_closes:
        report.slowest_s = max(report.slowest_s, seconds)
    try:
        replies = replies_in(bytes(got), has_head=b"HEAD" in data)
    except Malformed as error:
        report.fail(f"malformed: {error}", data)
        return
    report.statuses.update(reply.status for reply in replies)
    for complaint in complaints(replies, secrets=target.secrets, allowed=target.allowed):
        report.fail(complaint, data)
    if target.group is not None and target.group.violations:
        report.fail(f"the group: {target.group.violations.pop()}", data)


async def _exchanged(port: int, parts: list[bytes], got: bytearray, *, half_closes: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(0)
            writer.write(part)
        if half_closes:
            writer.write_eof()
        while part := await reader.read(2**16):
            got += part
    finally:
        writer.transport.abort()


async def run(name: str, num_cases: int, seed: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        world = the_gateway() if name == "gateway" else the_worker(Path(folder))
        async with world as target:
            return await send(target, num_cases, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50_000, help="at the gateway")
    parser.add_argument("--worker", type=int, default=10_000, help="at the worker's server")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    passed = True
    for name, num_cases in (("gateway", arguments.cases), ("worker", arguments.worker)):
        if not num_cases:
            continue
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(run(name, num_cases, arguments.seed))
        print(*report.failures, sep="\n")
        told = {
            each: getattr(report, each) for each in ("num_cases", "num_failures", "num_lines", "num_kept", "num_asked")
        }
        told |= {
            "slowest_s": round(report.slowest_s, 3),
            "seconds": round(report.seconds),
            "memory_ratio": round(report.memory_ratio, 3),
        }
        print(json.dumps({"raw": name, **told, "statuses": dict(sorted(report.statuses.items()))}), flush=True)
        passed &= not report.num_failures and report.memory_ratio < 1.1
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
