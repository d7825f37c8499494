"""The only module that talks to the management ports of workers. Never holds up a pass for long."""

import asyncio
import ipaddress
import logging
from collections.abc import Iterable

import httpx
from pydantic import ValidationError

from glm_operator import names
from glm_operator.observed import ObservedGroup
from glm_operator.report import GroupReport

logger = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(1.5, connect=1.0)
DEADLINE_S = 2.0
"""All groups are asked at once; who has not answered by then is asked again in the next pass."""

MAX_CONNECTIONS = 64


class Workers:
    """Asks the leading supervisors of groups how they are."""

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours.
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]:
        """Return what the leaders of these groups say, by group; a silent one is left out."""
        leaders = [(group.name, group.leader) for group in groups]
        urls = {name: group_url(leader.ip) for name, leader in leaders if leader is not None and leader.ip}
        tasks = {asyncio.create_task(self._ask(url)): name for name, url in urls.items()}
        if not tasks:
            return {}
        done, late = await asyncio.wait(tasks, timeout=DEADLINE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        answers = {tasks[task]: task.result() for task in done}
        return {name: report for name, report in answers.items() if report is not None}

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
