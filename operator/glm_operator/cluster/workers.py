"""The only module that talks to the management ports of workers. Never holds up a pass for long."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable

import httpx
from pydantic import ValidationError

from glm_operator import names
from glm_operator.observe.observed import ObservedGroup, ObservedPod
from glm_operator.observe.report import GroupReport

logger = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(1.5, connect=1.0)
DEADLINE_S = 2.0
"""All groups are asked at once; who has not answered by then is asked again in the next pass."""

MAX_CONNECTIONS = 64

REMEMBERED_S = 30.0
"""What a leader said counts this long while it says nothing: on a busy node one answer is late now and then, and the
status must not forget a failure for it."""


class Workers:
    """Asks the leading supervisors of groups how they are."""

    def __init__(self, http: httpx.AsyncClient | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, GroupReport]] = {}  # by uid of the pod: when, and what
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours.
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say, or said a moment ago, by group; a silent one is left out."""
        leaders = {group.name: leader for group in groups if (leader := group.leader) is not None and leader.ip}
        await self._ask_all(leaders.values())
        now_s = self._clock()
        self._said = {uid: said for uid, said in self._said.items() if now_s - said[0] <= REMEMBERED_S}
        return {name: self._said[leader.uid][1] for name, leader in leaders.items() if leader.uid in self._said}

    async def _ask_all(self, leaders: Iterable[ObservedPod]) -> None:
        """Ask all at once, and note what those say that answer in time."""
        tasks = {asyncio.create_task(self._ask(group_url(leader.ip or ""))): leader.uid for leader in leaders}
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=DEADLINE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            if (report := task.result()) is not None:
                self._said[tasks[task]] = self._clock(), report

    async def _ask(self, url: str) -> GroupReport | None:
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            return GroupReport.model_validate_json(response.content)
        except httpx.HTTPError as error:
            logger.debug("%s does not answer: %s", url, error)
        except ValidationError as error:
            logger.warning("%s answers what is not understood: %s", url, error)
        return None


def group_url(ip: str) -> str:
    """Return the address of a leader's group report."""
    host = f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip
    return f"http://{host}:{names.MANAGEMENT_PORT}/group"
