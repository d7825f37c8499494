"""Looks at every deployment that is measured, each in a task of its own, some at once.

The looks of a deployment are a period apart from each other and begin at a moment of their own, so hundreds of
deployments ask Prometheus evenly and never together. A slow one is late for itself alone, until all places are taken by
slow ones: then looks wait, in order. No pass waits for any of this.

A deployment that may have no group, and has none, is looked at when one of its gateways begins to hold a request, too.
While there is none, its looks ask nobody, so they do not wait for a place.
"""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from glm_operator.autoscale.zero.asked import Asked
from glm_operator.cluster.gateways import Address
from glm_operator.handlers.autoscaler.addresses import addresses_for
from glm_operator.handlers.autoscaler.board import Board, Name
from glm_operator.handlers.autoscaler.follower import Follower, Hears, Reads, Scales, full_name
from glm_operator.handlers.autoscaler.situation import gpus_per_group, groups_taken
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Seen
from glm_operator.reconcile.promises import promises

logger = logging.getLogger(__name__)

AT_ONCE = 64
LOOK_LIMIT_S = 30.0
"""Reading and writing have timeouts of their own; this is for what they forget."""

FIND_S = 1.0
"""How often it is looked for deployments that came, went, or want something else."""

AWAITED_S = 1.0
"""Between two looks while a request waits for the first group, which was refused, or has no room."""


Generation = tuple[str, int]
"""The uid of a deployment and the generation of its spec: what tells one spec from the next."""


class Known(Protocol):
    """What the watches brought (glm_operator.cluster.cache.Cache)."""

    def seen(self, namespace: str, name: str, now: datetime) -> Seen | None: ...
    def bodies(self) -> Iterable[Manifest]: ...
    def body(self, namespace: str, name: str) -> Manifest | None: ...
    def pods(self, namespace: str, name: str) -> Iterable[Manifest]: ...
    def is_complete(self, namespace: str) -> bool: ...


class Listens(Protocol):
    """What gateways say (glm_operator.cluster.gateways.Gateways)."""

    def follow(self, addresses: Iterable[Address], held: Callable[[Name], None]) -> None: ...
    def asked(self, deployment: str, addresses: Iterable[Address]) -> Asked: ...


@dataclass(frozen=True)
class _Wanted:
    """What a generation of a deployment asks for."""

    generation: Generation
    is_measured: bool
    may_be_zero: bool
    is_scaled: bool  # its number of groups is decided here, whether it is also set or only said


class Autoscaler:
    """The loop. It costs the API server nothing while nothing is to be changed."""

    def __init__(
        self,
        board: Board,
        *,
        kube: Scales,
        cache: Known,
        sources: Reads,
        workers: Hears,
        now: Callable[[], datetime],
        period_s: float,
        gpu_budgets: Mapping[str, int] | None = None,
        at_once: int = AT_ONCE,
        gateways: Listens | None = None,
    ) -> None:
        """gpu_budgets: by namespace, most GPUs that its deployments may take together. gateways: None: nobody hears
        them: what waits there is not counted, and every deployment keeps a group."""
        self._board = board
        self._kube = kube
        self._cache = cache
        self._sources = sources
        self._workers = workers
        self._now = now
        self._period_s = period_s
        self._gpu_budgets = gpu_budgets or {}
        self._slots = asyncio.Semaphore(at_once)
        self._gateways = gateways
        self._held: dict[Name, asyncio.Event] = {}  # a gateway began to hold requests
        self._followers: dict[Name, tuple[str, Follower]] = {}  # with the uid of the deployment
        self._tasks: dict[Name, asyncio.Task[None]] = {}
        self._wanted: dict[Name, _Wanted] = {}
        self._neighbours: dict[str, list[Manifest]] = {}  # deployments by namespace, as of a moment ago
        self._gpus: dict[Name, tuple[Generation, int]] = {}  # of a group

    async def run(self) -> None:
        """Follow what is to be followed, for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._find(tasks)
                await asyncio.sleep(min(FIND_S, self._period_s))

    async def look(self, name: Name) -> None:
        """Look once at a deployment that is measured."""
        follower = self._follower_of(name)
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                measured = await follower.look(lambda: self._now().timestamp())
        except TimeoutError:
            logger.warning("deployment=%s/%s: a look took more than %.0f s", *name, LOOK_LIMIT_S)
            return
        except Exception:  # the outermost loop: a fault in one deployment must not stop the others
            logger.exception("deployment=%s/%s: the look failed", *name)
            return
        if measured is None and not self._cache.is_complete(name[0]):
            measured = follower.unseen(self._now().timestamp())
        if measured is not None and self._followers.get(name, ("", None))[1] is follower:
            self._board.put(name, measured)

    def measured(self) -> set[Name]:
        """Return the deployments that are measured, as the watches know them."""
        self._neighbours = {}
        for body in self._cache.bodies():
            self._neighbours.setdefault(full_name(body)[0], []).append(body)
        bodies = itertools.chain.from_iterable(self._neighbours.values())
        self._wanted = {full_name(body): self._wants(body) for body in bodies}
        self._gpus = {name: known for name, known in self._gpus.items() if name in self._wanted}
        return {name for name, wanted in self._wanted.items() if wanted.is_measured}

    def _wants(self, body: Manifest) -> _Wanted:
        """Return what a deployment asks for; found out once a generation."""
        name, generation = full_name(body), _generation(body)
        known = self._wanted.get(name)
        if known is not None and known.generation == generation:
            return known
        promised = promises(body)
        scaling = promised.scaling
        is_scaled = scaling is not None and scaling.mode in ("Active", "Observe")
        may_be_zero = scaling is not None and scaling.may_be_zero
        return _Wanted(generation, self._board.is_measured(scaling, promised.slo), may_be_zero, is_scaled)

    async def _find(self, tasks: asyncio.TaskGroup) -> None:
        wanted = self.measured()
        for name in wanted - self._tasks.keys():
            self._tasks[name] = tasks.create_task(self._follow(name), name=f"autoscale-{name[0]}/{name[1]}")
        for name in self._tasks.keys() - wanted:
            self._tasks.pop(name).cancel()
            self.drop(name)
        self.listen()

    def listen(self) -> None:
        """Hold a stream to each gateway that may be asked for a deployment that is scaled: what waits there is load."""
        if self._gateways is not None:
            names = [name for name, wanted in self._wanted.items() if wanted.is_measured and wanted.is_scaled]
            self._gateways.follow([each for name in names for each in self._addresses(name)], self._note_held)

    def _note_held(self, name: Name) -> None:
        """Take the word of a gateway that it begins to hold requests for a deployment."""
        if name in self._tasks:
            self._held.setdefault(name, asyncio.Event()).set()

    def _addresses(self, name: Name) -> list[Address]:
        return addresses_for(name, self._neighbours.get(name[0], ()), self._cache.pods)

    def _asked(self, name: Name) -> Asked:
        wanted = self._wanted.get(name)
        if self._gateways is None or wanted is None or not wanted.is_scaled:
            return Asked()
        return self._gateways.asked(name[1], self._addresses(name))

    def drop(self, name: Name) -> None:
        """Forget a deployment."""
        if (known := self._followers.pop(name, None)) is not None:
            known[1].forget()
        self._held.pop(name, None)
        self._board.drop(name)

    async def _follow(self, name: Name) -> None:
        due_s = time.monotonic() + random.uniform(0, self._period_s)  # noqa: S311
        while True:
            is_called = await self._is_called(name, due_s)
            if self._is_at_zero(name):
                await self.look(name)
            else:
                async with self._slots:
                    await self.look(name)
            if not is_called:  # looks that were missed are not made up for
                due_s = max(due_s + self._period_s, time.monotonic())
            if name in self._followers and self._followers[name][1].is_awaited():
                due_s = min(due_s, time.monotonic() + AWAITED_S)

    async def _is_called(self, name: Name, due_s: float) -> bool:
        """Wait until a look is due; return early, and true, where there is no group and a gateway holds a request."""
        held = self._held.setdefault(name, asyncio.Event())
        while (left_s := due_s - time.monotonic()) > 0.0:
            try:
                async with asyncio.timeout(left_s):
                    await held.wait()
            except TimeoutError:
                break
            held.clear()
            if self._is_at_zero(name):
                return True
        return False

    def _is_at_zero(self, name: Name) -> bool:
        """Whether a deployment may have no group, and has none: by what was written last, or as the watches have it."""
        wanted, known, body = self._wanted.get(name), self._followers.get(name), self._cache.body(*name)
        if wanted is None or not wanted.may_be_zero:
            return False
        return (known is not None and known[1].is_at_zero) or ((body or {}).get("spec") or {}).get("replicas") == 0

    def _follower_of(self, name: Name) -> Follower:
        """Return who follows a deployment; of another one of the same name nothing is kept."""
        uid = self._wanted[name].generation[0] if name in self._wanted else ""
        known = self._followers.get(name)
        if known is not None and known[0] == uid:
            return known[1]
        if known is not None:
            self.drop(name)
        follower = self._new_follower(name, uid)
        self._followers[name] = uid, follower
        return follower

    def _new_follower(self, name: Name, uid: str) -> Follower:
        return Follower(
            name,
            uid,
            kube=self._kube,
            sources=self._sources,
            workers=self._workers,
            seen=lambda: self._cache.seen(*name, self._now()),
            namespace_gpus_left=lambda: self._gpus_left(name),
            period_s=self._period_s,
            asked=lambda: self._asked(name),
        )

    def _gpus_left(self, name: Name) -> int | None:
        """Return what the others of the namespace leave of its budget; None: it has none."""
        budget = self._gpu_budgets.get(name[0])
        if budget is None:
            return None
        others = [body for body in self._cache.bodies() if full_name(body)[0] == name[0] and full_name(body) != name]
        return budget - sum(self._gpus_taken(body) for body in others)

    def _gpus_taken(self, body: Manifest) -> int:
        name, generation = full_name(body), _generation(body)
        if (known := self._gpus.get(name)) is None or known[0] != generation:
            known = self._gpus[name] = generation, gpus_per_group(body)
        reserved = self._followers[name][1].reserved if name in self._followers else 0
        return known[1] * max(groups_taken(body), reserved)


def _generation(body: Manifest) -> Generation:
    return str(body["metadata"].get("uid", "")), int(body["metadata"].get("generation") or 0)
