"""Asks the pods of gateways how they are: the page /state of their management ports."""

import asyncio
from collections.abc import Hashable, Iterable
from typing import TypeVar

import httpx
from pydantic import ValidationError

from glm_operator import names
from glm_operator.cluster.workers import management_url
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.gateway_state import GatewayState

Owner = TypeVar("Owner", bound=Hashable)

TIMEOUT_S = 2.0
MAX_CONNECTIONS = 50


class GatewayPages:
    """Close it after use."""

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours.
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False)
        self._told: dict[str, object] = {}  # by uid of the pod: what a person is told of it

    async def close(self) -> None:
        await self._http.aclose()

    async def states(self, pods: Iterable[GatewayPod]) -> dict[str, GatewayState]:
        """Return what each of the pods says, by its name; one that is silent, or of the version before, is left out."""
        asked = [pod for pod in pods if pod.may_answer]
        answers = await asyncio.gather(*(self._state(pod) for pod in asked))
        return {pod.name: said for pod, said in zip(asked, answers, strict=True) if said is not None}

    async def poll(self, gateways: Iterable[tuple[Owner, GatewayPod]]) -> set[Owner]:
        """Ask all of these pods; return the owners of those of which a person is to be told something else now."""
        asked = [(owner, pod) for owner, pod in gateways if pod.may_answer]
        slots = asyncio.Semaphore(MAX_CONNECTIONS // 2)  # many that are silent hold up no pass

        async def ask(pod: GatewayPod) -> GatewayState | None:
            async with slots:
                return await self._state(pod)

        answers = await asyncio.gather(*(ask(pod) for _, pod in asked))
        before, self._told = self._told, {}
        changed = set()
        for (owner, pod), said in zip(asked, answers, strict=True):
            known = before.get(pod.uid)
            self._told[pod.uid] = now = known if said is None else said.told
            if now != known:
                changed.add(owner)
        return changed

    async def _state(self, pod: GatewayPod) -> GatewayState | None:
        assert pod.ip is not None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._http.get(management_url(pod.ip, names.STATE_PATH))
            if answer.status_code != httpx.codes.OK:
                return None
            return GatewayState.model_validate_json(answer.content)
        except (httpx.HTTPError, TimeoutError, ValidationError):
            return None
