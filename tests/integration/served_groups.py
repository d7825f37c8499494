"""Leading pods of groups as an operator process meets them: /group, /slo and /metrics at addresses of their own.

Load is that of metered_fleet, in real time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from glm_operator import names
from glm_operator.observe.report import slo_digest
from integration.metered_fleet import EDGES, LABELS, Group

TICK_S = 0.2


def address(pod: str) -> str:
    """Return the loopback address of a pod named chat-gN-0."""
    index = int(pod.removeprefix("chat-g").split("-")[0])
    return f"127.99.0.{index + 1}"


@dataclass
class ServedGroup:
    """One group's leader."""

    name: str
    load: Group | None = None  # None: it does not serve yet
    promises: Mapping[str, Any] | None = None
    puts: list[str] = field(default_factory=list)  # the token of each
    ended: list[tuple[float, float]] = field(default_factory=list)  # requests, seconds to their first token

    def app(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [web.get("/group", self._group), web.put("/slo", self._take), web.get("/metrics", self._metrics)]
        )
        return application

    async def _group(self, _: web.Request) -> web.Response:
        digest = slo_digest(self.promises) if self.promises is not None else None
        state = "serving" if self.load is not None else "starting"
        said = {"state": state, "generation": "a-1", "in_flight_tokens": 0, "slo_digest": digest}
        return web.json_response(said)

    async def _take(self, request: web.Request) -> web.Response:
        self.puts.append(request.headers.get("Authorization", ""))
        self.promises = await request.json()
        return web.json_response({"digest": slo_digest(self.promises or {})})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="\n".join(self._lines()) + "\n")

    def _lines(self) -> list[str]:
        labels = {"namespace": "models", "deployment": "chat", "group": self.name, "revision": "r1"}
        if self.load is None:
            return [_line("glm_group_serving_timestamp_seconds", labels, 0.0)]
        lines = [
            _line(name, {**labels, **LABELS.get(name, {})}, kept[-1][1])
            for name, kept in self.load.samples.items()
            if kept
        ]
        of_class = {**labels, "slo_class": "chat"}
        for edge in EDGES:
            within = sum(requests for requests, took_s in self.ended if took_s <= edge)
            written = {**of_class, "le": "+Inf" if edge == float("inf") else str(edge)}
            lines.append(_line("glm_time_to_first_token_seconds_bucket", written, within))
        met = sum(requests for requests, took_s in self.ended if took_s <= 0.5)
        whole = sum(requests for requests, _ in self.ended)
        for word, count in (("true", met), ("false", whole - met)):
            lines.append(_line("glm_slo_requests_total", {**of_class, "met": word}, count))
        return lines


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    written = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{written}}} {value}"


@dataclass
class ServedGroups:
    """The groups, and the load on those that serve."""

    groups: dict[str, ServedGroup]
    requests_per_s: float = 0.0

    async def run(self, serving: Any) -> None:
        """Let time pass. serving: returns the names of the groups whose pods are ready."""
        last_s = time.time()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.time()
            took_s, last_s = now_s - last_s, now_s
            ready = [self.groups[name] for name in serving()]
            for group in ready:
                group.load = group.load or Group(now_s)
                arrived = self.requests_per_s * took_s / len(ready)
                group.ended.append(group.load.advance(now_s, arrived, took_s))


@contextlib.asynccontextmanager
async def served_groups(num_groups: int) -> AsyncIterator[ServedGroups]:
    """Yield leaders of chat-g0, chat-g1, …, each at the management port of its own address."""
    groups = {f"chat-g{index}": ServedGroup(f"chat-g{index}") for index in range(num_groups)}
    runners = []
    try:
        for name, group in groups.items():
            runner = web.AppRunner(group.app(), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, address(f"{name}-0"), names.MANAGEMENT_PORT).start()
            runners.append(runner)
        yield ServedGroups(groups)
    finally:
        for runner in runners:
            await runner.cleanup()
