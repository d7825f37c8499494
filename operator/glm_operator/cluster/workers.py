"""The operator's client of the management ports of workers. Never holds up a pass for long."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from glm_operator import names
from glm_operator.api.status import MAX_TEXT
from glm_operator.observe.observed import ObservedGroup, ObservedPod
from glm_operator.observe.report import GroupReport

logger = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(1.5, connect=1.0)
DEADLINE_S = 2.0
"""The groups of a deployment are asked at once; who has not answered by then is asked again in the next pass."""

MAX_CONNECTIONS = 64
MAX_ANSWER_BYTES = 2**20
"""A report of a group has some KiB. A pod runs whatever image its owner chose, and may send without end."""

POLL_S = 30.0
"""Groups that serve are asked this often; those that start, drain or fail are asked by passes."""

REMEMBERED_S = 2.5 * POLL_S
"""What a leader said counts this long while it says nothing: on a busy node one answer is late now and then, and the
status must not forget a failure for it."""


Owner = TypeVar("Owner")


class _Taken(BaseModel):
    """The answer to what was put."""

    digest: str


class NotTaken(Exception):
    """A worker did not take what was put to it, this time. The message says which and why."""


class PutRefused(NotTaken):
    """It answered that it does not take it: it will say so again."""


class Workers:
    """Asks the leading supervisors of groups how they are, and puts promises and policies to them."""

    def __init__(self, http: httpx.AsyncClient | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, GroupReport]] = {}  # by uid of the pod: when, and what
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours.
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._poll_slots = asyncio.Semaphore(MAX_CONNECTIONS // 2)  # a poll of many that are silent holds up no pass

    async def close(self) -> None:
        await self._http.aclose()

    async def reports(self, groups: Iterable[ObservedGroup], ask: Collection[str]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say, or said a moment ago, by group; a silent one is left out.

        ask: names of the groups that are asked now.
        """
        leaders = _leaders(groups)
        await self._ask_all([leader for name, leader in leaders.items() if name in ask], DEADLINE_S)
        now_s = self._clock()
        self._said = {uid: said for uid, said in self._said.items() if now_s - said[0] <= REMEMBERED_S}
        return {name: self._said[leader.uid][1] for name, leader in leaders.items() if leader.uid in self._said}

    async def fresh_reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say now; one that does not answer is left out."""
        leaders = _leaders(groups)
        answers = await self._ask_all(leaders.values(), DEADLINE_S)
        return {name: answers[leader.uid] for name, leader in leaders.items() if leader.uid in answers}

    async def poll(self, groups: Iterable[tuple[Owner, ObservedGroup]]) -> set[Owner]:
        """Ask all of these groups, some at a time; return the owners of those that say something else than before."""
        leaders = [(owner, group.leader) for owner, group in groups]
        asked = [(owner, leader) for owner, leader in leaders if leader is not None and leader.ip]
        before = {uid: report for uid, (_, report) in self._said.items()}
        answers = await self._ask_all([leader for _, leader in asked], POLL_S, self._poll_slots)
        return {
            owner
            for owner, leader in asked
            if leader.uid in answers and not _is_same(answers[leader.uid], before.get(leader.uid))
        }

    async def put_slo(self, group: ObservedGroup, token: str, body: Mapping[str, object]) -> str | None:
        """Put promises to the leader of a group; return their digest, None where the worker is of the version before.

        token: names.management_token of the deployment's uid. body: what Slo.for_workers() makes. Raises NotTaken when
        the worker does not answer, PutRefused when it refuses.
        """
        return await self._put(group, names.SLO_PATH, "the promises", token, body)

    async def put_policy(self, group: ObservedGroup, token: str, body: Mapping[str, object]) -> str | None:
        """Put a policy to the leader of a group; otherwise as put_slo. body: what Policy.for_workers() makes."""
        return await self._put(group, names.POLICY_PATH, "the policy", token, body)

    async def _put(
        self, group: ObservedGroup, path: str, what: str, token: str, body: Mapping[str, object]
    ) -> str | None:
        leader = group.leader
        if leader is None or not leader.ip:
            raise NotTaken(f"group {group.name} has no leading pod with an address yet")
        url = management_url(leader.ip, path)
        try:
            async with asyncio.timeout(DEADLINE_S), self._slots:
                code, said = await self._exchange("PUT", url, json=body, headers={"Authorization": f"Bearer {token}"})
        except (httpx.HTTPError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise NotTaken(f"pod {leader.name} did not answer at {url}: {why}") from error
        if code == httpx.codes.NOT_FOUND:
            return None
        if code != httpx.codes.OK:
            words = said.decode(errors="replace").strip()[:MAX_TEXT]
            raise PutRefused(f"pod {leader.name} refused {what} with {code}: {words}")
        try:
            return _Taken.model_validate_json(said).digest
        except ValidationError as error:
            raise PutRefused(f"pod {leader.name} sent an invalid answer: {error}") from error

    async def _ask_all(
        self, leaders: Iterable[ObservedPod], deadline_s: float, slots: asyncio.Semaphore | None = None
    ) -> dict[str, GroupReport]:
        """Ask all at once, and note what those say that answer in time; return it by uid of the pod."""
        tasks = {
            asyncio.create_task(self._ask(group_url(leader.ip or ""), slots or self._slots)): leader.uid
            for leader in leaders
        }
        if not tasks:
            return {}
        done, late = await asyncio.wait(tasks, timeout=deadline_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        answers = {tasks[task]: report for task in done if (report := task.result()) is not None}
        self._said |= {uid: (self._clock(), report) for uid, report in answers.items()}
        return answers

    async def _ask(self, url: str, slots: asyncio.Semaphore) -> GroupReport | None:
        try:
            async with slots:
                code, said = await self._exchange("GET", url)
            if code == httpx.codes.OK:
                return GroupReport.model_validate_json(said)
            logger.debug("%s answers %d", url, code)
        except httpx.HTTPError as error:
            logger.debug("%s does not answer: %s", url, error)
        except ValidationError as error:
            logger.warning("%s sent an invalid answer: %s", url, error)
        return None

    async def _exchange(self, method: str, url: str, **what: Any) -> tuple[int, bytes]:
        """Return the code and the body of an answer. One that is too long is a protocol error, not read to its end."""
        async with self._http.stream(method, url, **what) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise httpx.RemoteProtocolError(f"the answer is longer than {MAX_ANSWER_BYTES >> 10} KiB")
            return response.status_code, bytes(body)


def _leaders(groups: Iterable[ObservedGroup]) -> Mapping[str, ObservedPod]:
    return {group.name: leader for group in groups if (leader := group.leader) is not None and leader.ip}


def _is_same(report: GroupReport, before: GroupReport | None) -> bool:
    """Tell whether nothing is new but what changes with every request."""
    changing = {"in_flight_tokens": None}
    return before is not None and report.model_copy(update=changing) == before.model_copy(update=changing)


def group_url(ip: str) -> str:
    """Return the address of a leader's group report."""
    return management_url(ip, "/group")


def management_url(ip: str, path: str) -> str:
    """Return an address on the management port of a pod."""
    host = f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip
    return f"http://{host}:{names.MANAGEMENT_PORT}{path}"
