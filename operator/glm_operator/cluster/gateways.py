"""The only client of the management ports of gateways: a stream to each, that says what it is asked.

A gateway sends a line at least every 2 s, and at once when a request begins to wait for a group. What it said counts
for 6 s. Nobody waits for a stream: who wants to know reads what was said last, and is called when a request waits.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated

import httpx
from pydantic import BaseModel, Field, ValidationError

from glm_operator.autoscale.zero.asked import Asked, Gateway, Said

logger = logging.getLogger(__name__)

DEMAND_PATH = "/demand?stream=1&least_s=1"
"""A line a second is enough for all but the first request that waits, which is told at once. A gateway that is asked
hundreds of times a second would else say ten, and there are many gateways."""

SILENT_S = 6.0
"""Three lines that did not come."""

CONNECT_S = 2.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses before a stream that broke is begun anew, give or take a fifth."""

LEAST_GAP_S = 0.02
"""Lines are read no faster: a gateway of the version before sends ten a second, and a pod runs whatever image its owner
chose."""

MAX_LINE_BYTES = 2**20

Name = tuple[str, str]  # namespace, name of a deployment

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _OfModel(BaseModel):
    """What a gateway is asked of one model."""

    held: _Number
    held_tokens: _Number | None = None  # one of the version before does not say it
    running: _Number
    oldest_s: _Number
    idle_s: _Number | None
    deployment: str | None = None  # whose groups these are; None or empty: it does not say, and the model's name counts


class _Page(BaseModel):
    """One line."""

    up_s: _Number
    models: dict[str, _OfModel]

    @property
    def names_all(self) -> bool:
        """Whether it says of each model whose groups it has: then what it does not name, it does not serve."""
        return all(each.deployment for each in self.models.values())

    def of_deployments(self) -> Mapping[str, Said]:
        """Return what is asked of each deployment, whatever names its models have."""
        found: dict[str, list[_OfModel]] = {}
        for model, each in self.models.items():
            found.setdefault(each.deployment or model, []).append(each)
        return {name: self._together(models) for name, models in found.items()}

    def _together(self, models: list[_OfModel]) -> Said:
        tokens = sum(each.held_tokens or 0.0 for each in models)
        return Said(
            held=sum(each.held for each in models),
            held_tokens=None if any(each.held_tokens is None for each in models) else tokens,
            running=sum(each.running for each in models),
            oldest_s=max(each.oldest_s for each in models),
            idle_s=min((each.idle_s for each in models if each.idle_s is not None), default=None),
            up_s=self.up_s,
        )


@dataclass(frozen=True)
class Address:
    """One gateway that runs. url: of its stream; another one is another gateway."""

    namespace: str
    owner: str  # the deployment whose gateway it is; it may serve others as well
    name: str
    uid: str
    url: str
    is_ready: bool = True
    is_leaving: bool = False  # it was told to go; what it has still counts, as long as it says so

    @property
    def key(self) -> tuple[str, str]:
        return self.uid, self.url


@dataclass(frozen=True)
class _Heard:
    """What a gateway said last, by deployment."""

    at_s: float
    said: Mapping[str, Said]
    is_all: bool  # it serves no other deployments


class Gateways:
    """One stream to each gateway that is followed. Use it from one event loop."""

    def __init__(self, http: httpx.AsyncClient | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        timeout = httpx.Timeout(CONNECT_S, read=SILENT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours.
        self._http = http or httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        self._clock = clock
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}  # by uid and url
        self._heard: dict[tuple[str, str], _Heard] = {}

    async def close(self) -> None:
        """End every stream."""
        tasks, self._tasks = [*self._tasks.values()], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def follow(self, addresses: Iterable[Address], held: Callable[[Name], None]) -> None:
        """Hold a stream to each of these gateways, and to no other one.

        held: told of a deployment of which a gateway begins to hold requests.
        """
        wanted = {each.key: each for each in addresses}
        for key in self._tasks.keys() - wanted.keys():
            self._tasks.pop(key).cancel()
            self._heard.pop(key, None)
        for key in wanted.keys() - self._tasks.keys():
            task = self._listen(wanted[key], held)
            self._tasks[key] = asyncio.create_task(task, name=f"demand-{wanted[key].name}")

    def asked(self, deployment: str, addresses: Iterable[Address]) -> Asked:
        """Return what these gateways say of a deployment now.

        Left out is one that leaves and says nothing any more, and one of another deployment that does not serve this.
        """
        found = []
        for each in addresses:
            heard = self._fresh(each)
            said = self._said(heard, deployment) if heard is not None else None
            serves_others = heard is not None and heard.is_all and each.owner != deployment
            if said is None and (each.is_leaving or serves_others):
                continue
            found.append(Gateway(name=each.name, is_ready=each.is_ready and not each.is_leaving, said=said))
        return Asked(tuple(found))

    def _fresh(self, address: Address) -> _Heard | None:
        heard = self._heard.get(address.key)
        return heard if heard is not None and self._clock() - heard.at_s <= SILENT_S else None

    def _said(self, heard: _Heard, deployment: str) -> Said | None:
        said, age_s = heard.said.get(deployment), self._clock() - heard.at_s
        if said is None:
            return None
        return replace(
            said,
            oldest_s=said.oldest_s + age_s if said.held else 0.0,
            idle_s=None if said.idle_s is None else said.idle_s + age_s,
            up_s=said.up_s + age_s,
        )

    async def _listen(self, address: Address, held: Callable[[Name], None]) -> None:
        """Keep a stream to one gateway, for ever."""
        who, failures = f"gateway {address.namespace}/{address.name}", 0
        while True:
            try:
                async with aclosing(self._pages(address.url)) as pages:
                    async for page in pages:
                        if failures >= len(BACKOFF_S):
                            logger.info("%s says what it is asked again", who)
                        failures = 0
                        self._take(address, page, held)
                why = "the stream ended"
            except (httpx.HTTPError, httpx.InvalidURL, _Broken) as error:
                why = str(error) or type(error).__name__
            except Exception as error:  # the outermost loop of one gateway: it must go on
                logger.exception("%s: what it says cannot be taken", who)
                why = repr(error)
            failures += 1
            if failures == len(BACKOFF_S):  # one that begins or ends is no news
                logger.warning("%s does not say what it is asked: %s", who, why)
            pause_s = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311

    async def _pages(self, url: str) -> AsyncGenerator[_Page]:
        async with self._http.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            if response.status_code != httpx.codes.OK:
                raise _Broken(f"{url} answers {response.status_code}")
            async for line in _lines(response.aiter_raw()):
                try:
                    page = _Page.model_validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    where = ".".join(map(str, first["loc"])) or "a line"
                    raise _Broken(f"{url} sent an invalid page: {where}: {first['msg']}") from error
                yield page
                await asyncio.sleep(LEAST_GAP_S)

    def _take(self, address: Address, page: _Page, held: Callable[[Name], None]) -> None:
        before = self._heard.get(address.key)
        said = page.of_deployments()
        self._heard[address.key] = _Heard(self._clock(), said, page.names_all)
        for deployment, each in said.items():
            had = before.said.get(deployment) if before is not None else None
            if each.held and (had is None or not had.held):
                held((address.namespace, deployment))


class _Broken(Exception):
    """A stream that says what it must not. The message says what."""


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*whole, rest))) > MAX_LINE_BYTES:
            raise _Broken(f"a line is longer than {MAX_LINE_BYTES >> 10} KiB")
        for line in whole:
            if line.strip():
                yield line
