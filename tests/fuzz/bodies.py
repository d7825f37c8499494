"""Send hostile bodies to a server and judge what comes back: `python -m fuzz.bodies PORT`, a JSON line at the end."""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from fuzz.judge import complaints
from fuzz.mutations import Case, case
from fuzz.seeds import CANARY, Seed, seeds
from fuzz.wire import Connection

NUM_CONNECTIONS = 4


@dataclass
class Report:
    """What came of the cases. failures: the first few, told."""

    num_cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    num_failures: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""

    def fail(self, sent: Case, what: str, shown: bytes) -> None:
        self.num_failures += 1
        if len(self.failures) < 40:
            self.failures.append(f"case {sent.number} {sent.path} {sent.says}: {what}: {shown[:400]!r}")


def class_names(description: dict[str, Any]) -> set[str]:
    """Return the names of our models, as the description of the API has them. Answers and errors have none."""
    names = [name for name in description["components"]["schemas"] if not name.startswith(("Answer.", "Error."))]
    return {name.rpartition(".")[2] for name in names}


async def send(port: int, of: list[Seed], numbers: Iterable[int], seed: int, *, host: str = "127.0.0.1") -> Report:
    """Send these cases over some connections and judge the replies."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        names = class_names((await client.get(f"http://{host}:{port}/openapi.json")).json())
    report = Report()
    waiting = iter(numbers)
    await asyncio.gather(
        *(_send_some(Connection(port, host), of, waiting, seed, names, report) for _ in range(NUM_CONNECTIONS))
    )
    return report


async def _send_some(
    connection: Connection, of: list[Seed], waiting: Iterable[int], seed: int, names: set[str], report: Report
) -> None:
    for number in waiting:
        sent = case(of, seed, number)
        began_s = time.monotonic()
        try:
            reply = await connection.post(sent.path, sent.body, {"content-type": "application/json"})
        except (OSError, EOFError, TimeoutError) as error:
            report.fail(sent, f"no reply: {type(error).__name__}", sent.body)
            await connection.close()
            continue
        took_s = time.monotonic() - began_s
        if took_s > report.slowest_s:
            report.slowest_s, report.slowest = took_s, f"case {number} {sent.path} {sent.says}"
        report.num_cases += 1
        report.statuses[reply.status] += 1
        secrets = [CANARY] if sent.keeps_places else []
        for what in complaints(sent.path, reply, class_names=names, secrets=secrets):
            report.fail(sent, what, reply.body)
    await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--model", default="glm-nano")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--show", action="store_true", help="print the bytes of the first case and end")
    arguments = parser.parse_args()
    of = seeds(arguments.model)
    if arguments.show:
        shown = case(of, arguments.seed, arguments.first)
        print(shown.path, shown.says, file=sys.stderr)
        sys.stdout.buffer.write(shown.body)
        return 0
    numbers = range(arguments.first, arguments.first + arguments.cases)
    report = asyncio.run(send(arguments.port, of, numbers, arguments.seed, host=arguments.host))
    for failure in report.failures:
        print(failure)
    print(json.dumps({**vars(report), "statuses": dict(report.statuses), "failures": len(report.failures)}))
    return 1 if report.num_failures else 0


if __name__ == "__main__":
    sys.exit(main())
