"""An external judge: asked who a caller is, and whether a path is allowed. Its answers are kept for a moment.

Where it does not answer, nobody gets in by that: the request is refused with 503.
"""

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass

import httpx

from glm_edge.errors.failure import Failure
from glm_gateway.access.config import JudgeConfig
from glm_gateway.access.credentials import CREDENTIALS, RawHeaders
from glm_gateway.access.decide import unknown_caller
from glm_gateway.access.who import BadWho, Who, who_in
from glm_gateway.identity.asking import NoAnswer, answer, client_for

log = logging.getLogger(__name__)

MAX_KEPT = 10_000
MAX_ASKED_AT_ONCE = 64
AGAIN_S = 1

_UNKNOWN = unknown_caller("the API key is not known here; it may be mistyped or revoked")
_FORBIDDEN = Failure(403, "the caller may not ask for this", "permission_error", None, "permission_denied")
_UNAVAILABLE = Failure(
    503,
    "who may ask is judged elsewhere, and no answer came from there",
    "server_error",
    None,
    "unavailable",
    AGAIN_S,
)


@dataclass
class Judge:
    """Use it from one event loop, between `open` and `close`."""

    config: JudgeConfig

    def __post_init__(self) -> None:
        self._secret = secrets.token_bytes(32)  # what is kept is found by a hash that nobody else can make
        self._kept: OrderedDict[bytes, tuple[float, Who | Failure]] = OrderedDict()  # until when each is good
        self._asking: dict[bytes, asyncio.Task[Who | Failure]] = {}
        self._client: httpx.AsyncClient | None = None
        self._has_failed = False

    async def open(self) -> None:
        self._client = await client_for(self.config.url, max_connections=MAX_ASKED_AT_ONCE)

    async def close(self) -> None:
        for task in list(self._asking.values()):
            task.cancel()
        if self._client is not None:
            await self._client.aclose()

    async def who(self, method: str, path: str, headers: RawHeaders) -> Who | Failure:
        """Return who asks for a path; or that they may not, or that nobody knows."""
        told = {name.decode(): value.decode("latin-1") for name, value in headers if name in CREDENTIALS}
        said = "\n".join([method, path, *(f"{name}:{value}" for name, value in sorted(told.items()))])
        mark = hmac.digest(self._secret, said.encode("utf-8", "surrogateescape"), "sha256")
        until_s, found = self._kept.get(mark, (0.0, None))
        if found is not None and asyncio.get_running_loop().time() < until_s:
            return found
        task = self._asking.get(mark)
        if task is None:  # who asks the same at the same time has the same answer
            task = self._asking[mark] = asyncio.create_task(self._asked(method, path, told))
            task.add_done_callback(lambda done: self._note(mark, done))
        return await asyncio.shield(task)

    async def _asked(self, method: str, path: str, headers: dict[str, str]) -> Who | Failure:
        assert self._client is not None
        try:
            request = self._client.build_request(
                "POST", self.config.url, json={"method": method, "path": path, "headers": headers}, timeout=None
            )
            status, said = await answer(self._client, request, self.config.timeout_seconds)
            found = _judged(status, said)
        except NoAnswer as error:
            if not self._has_failed:
                log.error("the judge of callers: %s; requests are refused until it answers", error)
            self._has_failed = True
            return _UNAVAILABLE
        if self._has_failed:
            log.info("the judge of callers answers again")
        self._has_failed = False
        return found

    def _note(self, mark: bytes, done: "asyncio.Task[Who | Failure]") -> None:
        del self._asking[mark]
        if done.cancelled() or done.exception() is not None or done.result() is _UNAVAILABLE:
            return
        if self.config.cache_seconds:
            until_s = asyncio.get_running_loop().time() + self.config.cache_seconds
            self._kept[mark] = (until_s, done.result())
            self._kept.move_to_end(mark)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)


def _judged(status: int, said: object) -> Who | Failure:
    """Return what an answer means. Raises NoAnswer for one that means nothing."""
    if status == 401:
        return _UNKNOWN
    if status == 403:
        return _FORBIDDEN
    if status != 200:
        raise NoAnswer(f"it answered {status}; allowed are 200, 401 and 403")
    if not isinstance(said, dict):
        raise NoAnswer("it answered with what is no JSON object")
    try:
        return who_in(said, name="name", group="group", role="role")
    except BadWho as error:
        raise NoAnswer(f"of its answer, {error}") from None
