"""Watches of deployments and of what they own: they fill the cache and say which deployment may have changed.

Each is one kind in one namespace: a list in pages, then a stream that goes on from its version. A stream that says
nothing, not even the bookmark that the API server sends every minute, is taken for dead and begun anew. A watch that
cannot go on lists again, and finds what vanished meanwhile.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from glm_operator import names
from glm_operator.cluster.cache import Cache, Name
from glm_operator.cluster.kube import Kube
from glm_operator.errors import Expired, KubeError
from glm_operator.manifest import Manifest

logger = logging.getLogger(__name__)

SILENCE_LIMIT_S = 75.0
"""Bookmarks come every minute, give or take some seconds."""

SERVER_TIMEOUT_S = 600
"""The API server ends a stream after this time; the next one goes on from its version. Up to half as long again, so
that not all of them are renewed at once."""

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


def labels_of(kind: str) -> dict[str, str]:
    """Return the labels of what is watched; StatefulSets have ControllerRevisions, too, with the labels of our pods."""
    if kind == names.KIND:
        return {}
    ours = {names.MANAGED_BY_LABEL: names.FIELD_MANAGER}
    return {**ours, names.RECORD_LABEL: "true"} if kind == "ControllerRevision" else ours


class Watch:
    """One kind in one namespace (None: in all)."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        kind: str,
        namespace: str | None,
        wake: Callable[[Name], None],
        *,
        silence_limit_s: float = SILENCE_LIMIT_S,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.restarts = 0  # streams given up as silent
        self.has_listed = asyncio.Event()  # once
        self._kube = kube
        self._cache = cache
        self._labels = labels_of(kind)
        self._wake = wake
        self._silence_limit_s = silence_limit_s
        self._backoff_s = backoff_s
        self._version = ""  # to go on from; none: list first
        self._reached = 0  # the same as a number; a list that is older is of another past
        self._has_heard = False  # anything, since the last stream was begun
        self._heard_at = time.monotonic()
        self._said = ""  # why it does not work, while it does not

    def age_s(self) -> float:
        """Return the seconds since it last heard anything: an event, a bookmark or a list."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """List and watch for ever. Whatever the API server answers, another try follows."""
        failures = 0  # in a row, in which nothing was heard
        while True:
            before, self._has_heard = self._version, False
            try:
                if not self._version:
                    await self.list()
                await self._follow()
                failures = 0 if self._has_heard else failures + 1  # something that ends every stream at once
            except Expired:
                self._version = ""
                failures = 0 if self._has_heard and before else failures + 1
            except KubeError as error:
                # A namespace that is gone or closed to us holds up none of the others, and may come back.
                self._report(str(error))
                failures = 0 if self._has_heard else failures + 1
                if failures > 1:
                    self._version = ""
            if self.age_s() > self._silence_limit_s:
                self._cache.unlist(self.kind, self.namespace)
                self._version = ""  # only a list makes what is known complete again
            if failures > 1 or (failures == 1 and self._version):
                pause_s = self._backoff_s[min(failures, len(self._backoff_s)) - 1]
                await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311

    async def list(self) -> None:
        """Take everything anew, to go on from there."""
        items: list[Manifest] = []
        version = ""
        async for page, version in self._kube.pages(self.kind, self.namespace, self._labels):  # noqa: B007 - the last
            items += page
        self._hear()
        is_of_the_past = _number(version) < self._reached
        changed = self._cache.clear(self.kind, self.namespace) if is_of_the_past else set()
        self._reached = _number(version)
        for deployment in changed | self._cache.replace(self.kind, self.namespace, items):
            self._wake(deployment)
        self._version = version
        self.has_listed.set()

    async def _follow(self) -> None:
        """Take what happens after the version at hand until the stream ends."""
        timeout_s = int(SERVER_TIMEOUT_S * (1 + random.random() / 2))  # noqa: S311
        events = self._kube.watch(self.kind, self.namespace, self._labels, self._version, timeout_s=timeout_s)
        self._has_heard = False
        try:
            async with asyncio.timeout(self._silence_limit_s) as silence:
                async for happened, item in events:
                    silence.reschedule(asyncio.get_running_loop().time() + self._silence_limit_s)
                    self._hear()
                    if happened != "BOOKMARK":
                        self._take(happened, {**item, "kind": self.kind})
                    self._version = str(item["metadata"]["resourceVersion"])
                    self._reached = max(self._reached, _number(self._version))
        except TimeoutError:
            self.restarts += 1
            logger.warning("watch of %s heard nothing for %.0f s and is begun anew", self, self._silence_limit_s)
        finally:
            await events.aclose()

    def _take(self, happened: str, item: Manifest) -> None:
        deployment = self._cache.drop(item) if happened == "DELETED" else self._cache.put(item)
        if deployment is not None:
            self._wake(deployment)

    def _hear(self) -> None:
        self._heard_at, self._has_heard = time.monotonic(), True
        if self._said:
            logger.info("watch of %s works again", self)
        self._said = ""

    def _report(self, said: str) -> None:
        if said != self._said:
            logger.warning("watch of %s: %s", self, said)
        self._said = said

    def __str__(self) -> str:
        return f"{self.kind} in {self.namespace or 'all namespaces'}"


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
