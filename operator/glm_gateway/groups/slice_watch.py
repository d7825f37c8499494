"""Groups from the EndpointSlices of a Service: a list, then a watch, and a list again now and then.

The account of the gateway may get, list and watch EndpointSlices and nothing else. While the API server is away, what
was known holds on: groups serve without it.
"""

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from glm_gateway.groups.found import BadSource, Found
from glm_gateway.groups.slices import groups_of

log = logging.getLogger(__name__)

SERVICE_LABEL = "kubernetes.io/service-name"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GONE = 410


@dataclass(frozen=True, kw_only=True)
class Pace:
    """In seconds."""

    resync_s: float = 300.0  # between two lists: what a watch has missed is found then
    watch_s: int = 60  # of one watch: an API server that is gone without a word is noticed soon after
    margin_s: float = 15.0  # until it is, after the watch should have ended
    connect_s: float = 5.0
    first_s: float = 0.2  # until the first try after an error, then twice as long each time
    last_s: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Access:
    """The API server, and who we are to it. Files are read again for each request: they rotate."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def in_cluster(cls, host: str, port: str, account: Path = ACCOUNT) -> "Access":
        """host, port: KUBERNETES_SERVICE_HOST and _PORT."""
        name = f"[{host}]" if ":" in host else host
        return cls(url=f"https://{name}:{port}", token_file=account / "token", ca_file=account / "ca.crt")


class _Expired(Exception):
    """What is asked for is older than the API server remembers."""


class _Failed(Exception):
    """The API server is not there, or refuses."""


@dataclass
class SliceSource:
    """take: gets the groups after each list, and each time that they are others."""

    access: Access
    namespace: str
    service: str
    take: Callable[[list[Found]], None]
    pace: Pace = field(default_factory=Pace)
    problem: str = ""  # what is wrong with the API server now, in a sentence
    _slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    _found: list[Found] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        clock = asyncio.get_running_loop().time
        num_failures = 0
        while True:
            began_s = clock()
            try:
                async with await self._client() as client:
                    await self._follow(client)
                continue
            except _Expired:
                log.info("the watch of EndpointSlices is too old; listing them again")
            except (httpx.HTTPError, OSError, ValueError, LookupError, TypeError, _Failed, BadSource) as error:
                self._complain(str(error) or type(error).__name__)
            if clock() - began_s > self.pace.last_s:  # it went well for a while
                num_failures = 0
            delay_s = min(self.pace.last_s, self.pace.first_s * 2 ** min(num_failures, 16))
            num_failures += 1
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads

    async def _client(self) -> httpx.AsyncClient:
        verify: ssl.SSLContext | bool = False  # of an address without TLS
        if self.access.ca_file is not None:
            verify = await asyncio.to_thread(ssl.create_default_context, cafile=str(self.access.ca_file))
        pace = self.pace
        timeout = httpx.Timeout(pace.connect_s, read=pace.watch_s + pace.margin_s)
        return httpx.AsyncClient(base_url=self.access.url, verify=verify, timeout=timeout, trust_env=False)

    async def _headers(self) -> dict[str, str]:
        if self.access.token_file is None:
            return {}
        token = await asyncio.to_thread(self.access.token_file.read_text)
        return {"authorization": f"Bearer {token.strip()}"}

    async def _follow(self, client: httpx.AsyncClient) -> None:
        """List, then watch until it is time to list again."""
        clock = asyncio.get_running_loop().time
        listed_s = clock()
        version = await self._list(client)
        while True:
            began_s = clock()
            version = await self._watch(client, version)
            if clock() - listed_s >= self.pace.resync_s:
                return
            if clock() - began_s < self.pace.first_s:  # who ends a watch at once is not asked without end
                await asyncio.sleep(self.pace.first_s)

    async def _list(self, client: httpx.AsyncClient) -> str:
        answer = await client.get(
            self._path, params=self._query, headers=await self._headers(), timeout=self.pace.margin_s
        )
        _check(answer.status_code)
        read = answer.json()
        self._slices = {each["metadata"]["name"]: each for each in read["items"] or ()}
        self._tell(always=True)
        if self.problem:
            log.info("the API server answers again")
        self.problem = ""
        return str(read["metadata"]["resourceVersion"])

    async def _watch(self, client: httpx.AsyncClient, version: str) -> str:
        """Take the events of one watch; return the version that the next one begins at."""
        query = self._query | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self.pace.watch_s),
        }
        async with client.stream("GET", self._path, params=query, headers=await self._headers()) as answer:
            _check(answer.status_code)
            async for line in answer.aiter_lines():
                if line:
                    version = self._take_event(json.loads(line)) or version
        return version

    def _take_event(self, event: dict[str, Any]) -> str:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            _check(int(found.get("code") or 0))
        metadata = found["metadata"]
        if kind == "DELETED":
            self._slices.pop(metadata["name"], None)
        elif kind != "BOOKMARK":
            self._slices[metadata["name"]] = found
        self._tell(always=False)
        return str(metadata["resourceVersion"])

    def _tell(self, *, always: bool) -> None:
        found = groups_of(self._slices.values())
        if always or found != self._found:
            self._found = found
            self.take(found)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("EndpointSlices of %s cannot be read; the groups known hold on: %s", self.service, problem)
        self.problem = problem

    @property
    def _path(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    @property
    def _query(self) -> dict[str, str]:
        return {"labelSelector": f"{SERVICE_LABEL}={self.service}"}


def _check(status: int) -> None:
    """Raise for an answer that is none. status: 0 is an error event without a code."""
    if status == GONE:
        raise _Expired
    if status != httpx.codes.OK:
        raise _Failed(f"the API server answered {status or 'with an error'}")
